"""Krum: the one update that lies nearest to most of the others.

Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, NeurIPS 2017, section 4,
https://arxiv.org/abs/1703.02757

    site:    as FedAvg
    server:  score_i = sum of |D_i - D_j|^2 over the n - f - 2 nearest j != i,     D_i = y_i - x
             x <- y_i of the lowest score; of equals the first by the site's name

It withstands f sites when n >= 2 f + 3. |D_i - D_j| is |y_i - y_j|, taken as such in float64 and not from inner
products, which lose small distances between large models. Buffers are those of the chosen site.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_whole
from strategies.distances import between
from strategies.local import Arrays
from strategies.mean import like, weighted_mean
from strategies.sums import Float64
from strategies.together import gather


class Krum(Strategy):
    """Chooses one update and takes it whole.

    Args:
        byzantine: f, the sites that may be anything, at least 0.
    """

    needs_all = True

    def __init__(self, *, byzantine: int = 1) -> None:
        super().__init__()
        self.byzantine = check_whole("byzantine", byzantine, 0)

    @property
    def fewest(self) -> int:
        return 2 * self.byzantine + 3

    def chosen(self, count: int) -> int:
        """How many of `count` updates are averaged."""
        return 1

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        together = gather(x, updates, self)
        best = np.argsort(self.scores(x, together), kind="stable")[: self.chosen(len(together))]
        return like(x, weighted_mean(x, [together[i] for i in best], "uniform"))

    def scores(self, x: Arrays, updates: Sequence[Update]) -> Float64:
        """The score of each update: how far its n - f - 2 nearest are."""
        nearest = len(updates) - self.byzantine - 2
        squared = np.sort(between(x, updates), axis=1)
        return np.asarray(squared[:, 1 : 1 + nearest].sum(axis=1))  # column 0 is the update's distance to itself
