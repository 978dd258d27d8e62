"""Geometric median (RFA): the point of the least total distance to the updates.

Pillutla et al., Robust Aggregation for Federated Learning, IEEE Transactions on Signal Processing 2022,
algorithm 2 (smoothed Weiszfeld), https://arxiv.org/abs/1912.13445

    site:    as FedAvg
    server:  v <- sum_i p_i D_i,   D_i = y_i - x,   then until it rests, at most 100 times:
                 w_i = p_i / max(nu, |v - D_i|)
                 v <- sum_i w_i D_i / sum_i w_i
             x <- x + v

It withstands bad sites that weigh less than half. Statistics of batch normalisation are pooled over all updates, so
robustness ends there: use group normalisation.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_range, check_weighting
from strategies.distances import to_mean
from strategies.local import Arrays
from strategies.mean import ParameterMean, like, share
from strategies.together import gather, pooled_buffers

MOST_ROUNDS = 100
RESTS = 1e-9
"""The search ends when v moves less than this share of its median distance to the updates."""


class GeometricMedian(Strategy):
    """The smoothed geometric median of the updates; three sites at least.

    Args:
        nu: smoothing, above 0: distances below it count as nu.
        weighting: p_i, "examples" or "uniform".
    """

    needs_all = True

    def __init__(self, *, nu: float = 1e-6, weighting: str = "examples") -> None:
        super().__init__()
        self.nu = check_range("nu", nu, 0.0, above=True)
        self.weighting = check_weighting(weighting)

    @property
    def fewest(self) -> int:
        return 3

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        together = gather(x, updates, self)
        p = np.array([share(update, self.weighting) for update in together])
        p /= p.sum()
        w = p
        for _ in range(MOST_ROUNDS):
            distances = np.maximum(self.nu, to_mean(x, together, w))
            closer = p / distances
            closer /= closer.sum()
            w, changes = closer, np.abs(closer - w)
            if changes @ distances <= RESTS * np.median(distances):  # |v - last v| is at most the left side
                break
        parameters = ParameterMean(x)
        for update, weight in zip(together, w, strict=True):
            parameters.add(update.arrays, float(weight))
        return like(x, parameters.mean() | pooled_buffers(x, together))
