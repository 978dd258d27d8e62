"""Coordinate-wise trimmed mean: the largest and the smallest values of each coordinate are left out.

Yin et al., Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates, ICML 2018, algorithm 1 with
option II, https://arxiv.org/abs/1803.01498

    site:    as FedAvg
    server:  x[k] <- mean of the y_i[k] that are left for each coordinate k when the k largest and the k smallest of
             the n are taken away,  k = max(1, floor(trim n)); unweighted

Statistics of batch normalisation are pooled over all updates, so robustness ends there: use group normalisation.
"""

import math

import numpy as np

from strategies.base import check_range
from strategies.median import Median
from strategies.sums import Float64

ROUNDING = 1e-9
"""What trim n may lack of a whole number for want of digits: .29 of 100 is 28.999999999999996."""


class TrimmedMean(Median):
    """The mean of each coordinate without its extremes: one site on each side at least, so three sites at least.

    Args:
        trim: share of the sites left out on each side, at least 0 and below 0.5.
    """

    def __init__(self, *, trim: float = 0.2) -> None:
        super().__init__()
        self.trim = check_range("trim", trim, 0.0, 0.5, below=True)

    def middle(self, values: Float64) -> Float64:
        count = len(values)
        cut = max(1, math.floor(self.trim * count + ROUNDING))
        return np.asarray(np.sort(values, axis=0)[cut : count - cut].mean(axis=0))
