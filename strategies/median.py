"""Coordinate median: half of the sites may lie about a coordinate and not move it beyond the honest values.

Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018, algorithm 1 with
option I, https://arxiv.org/abs/1803.01498

    site:    as FedAvg
    server:  x[k] <- median_i y_i[k] for each coordinate k, unweighted; of an even number the mean of the middle two

Statistics of batch normalisation are pooled over all updates, so robustness ends there: use group normalisation.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update
from strategies.local import Arrays
from strategies.mean import like
from strategies.sums import Float64
from strategies.together import columns, gather, pooled_buffers


class Median(Strategy):
    """The median of each coordinate; three sites at least."""

    needs_all = True

    def __init__(self) -> None:
        super().__init__()

    @property
    def fewest(self) -> int:
        return 3

    def middle(self, values: Float64) -> Float64:
        """One value a coordinate from those of the sites, (sites, coordinates)."""
        ordered, count = np.sort(values, axis=0), len(values)
        return np.asarray((ordered[(count - 1) // 2] + ordered[count // 2]) / 2)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        together = gather(x, updates, self)
        flat = {name: np.empty(a.size, a.dtype) for name, a in x.items()}
        for name, part, values in columns(x, together):
            flat[name][part] = self.middle(values)
        middles = {name: flat[name].reshape(a.shape) for name, a in x.items()}
        return like(x, middles | pooled_buffers(x, together))
