"""Norm bounding: no update counts for more than a bounded length.

Sun et al., Can You Really Backdoor Federated Learning?, 2019, section 4, https://arxiv.org/abs/1911.07963

    site:    as FedAvg
    server:  D_i <- D_i min(1, M / |D_i|),   D_i = y_i - x,   M given, or the median of the |D_i|
             x   <- x + sum_i p_i D_i

|D_i| and the bound are over the trainable parameters; statistics and counters are not touched.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_range, check_weighting
from strategies.distances import length_squared
from strategies.local import Arrays
from strategies.mean import BufferMean, ParameterMean, checked, like, share
from strategies.together import gather


class NormBounding(Strategy):
    """FedAvg of updates of bounded length.

    Args:
        max_norm: M, above 0; None takes the median of the round, which needs all updates side by side and three
            sites at least.
        weighting: "examples" or "uniform".
    """

    needs_all = True

    def __init__(self, *, max_norm: float | None = None, weighting: str = "examples") -> None:
        super().__init__()
        self.max_norm = None if max_norm is None else check_range("max_norm", max_norm, 0.0, above=True)
        self.weighting = check_weighting(weighting)

    @property
    def fewest(self) -> int:
        return 3 if self.max_norm is None else 1

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        parameters, buffers = ParameterMean(x), BufferMean(x)
        shares = []
        for update, factor in self._bounded(x, updates):
            weight = share(update, self.weighting)
            parameters.add(update.arrays, weight * factor)
            buffers.add(update.arrays, weight)
            shares.append(weight)
        # sum p_i s_i D_i = (sum p_i s_i) (mean - x), the mean over weights p_i s_i
        scale = parameters.total / math.fsum(shares)
        moved = {name: x[name] + scale * (y - x[name]) for name, y in parameters.mean().items()}
        return like(x, moved | buffers.mean())

    def _bounded(self, x: Arrays, updates: Iterable[Update]) -> Iterator[tuple[Update, float]]:
        """Each update and the factor that its length is bounded by."""
        if self.max_norm is not None:
            for update in checked(x, updates):
                yield update, _factor(self.max_norm, math.sqrt(length_squared(x, update.arrays)))
            return
        together = gather(x, updates, self)
        lengths = [math.sqrt(length_squared(x, update.arrays)) for update in together]
        for update, length in zip(together, lengths, strict=True):
            yield update, _factor(float(np.median(lengths)), length)


def _factor(bound: float, length: float) -> float:
    return bound / length if length > bound else 1.0
