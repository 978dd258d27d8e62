"""Scores that leave a site with noise of their own, paid for in the same ledger as the steps.

A score is the mean over a split's patients of what each scores, and each can score from 0 to B:

    s = ( sum_p min(max(s_p, 0), B) + sigma B N(0, 1) ) / P         s_p: the mean over the images of patient p

The number P of patients is public and the same in neighbouring data sets: there the images of one patient count
nothing ("zero-out", Ponomareva et al. 2023, https://arxiv.org/abs/2303.00654). So one patient moves the sum by B at
most, and k scores cost what k steps at sampling rate 1 cost: k alpha / (2 sigma^2) of RDP at order alpha (Mironov
2017, https://arxiv.org/abs/1702.07476, corollary 3).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from client.privacy.accounting import Charge
from client.privacy.draws import Rows
from client.privacy.randomness import Randomness

UNIT_METRICS = ("dice", "iou", "nsd")
"""Per-image scores from 0 to 1, as they are."""

LOSS = "loss"
"""The per-image score that has no bound of its own."""


def noised_mean(
    values: npt.NDArray[np.float64], units: Sequence[Rows], bound: float, noise: float, randomness: Randomness
) -> float:
    """One score.

    Args:
        values: of each image of the split, (N,); one that is not a number counts as the bound.
        units: the rows of each patient (or of each image, where that is the unit of the study).
        bound: B, above 0.
        noise: sigma, the noise in units of what one patient can move the sum by.

    Returns:
        The score, cut to what it can be without noise, from 0 to B: that costs nothing.
    """
    each = np.nan_to_num(values, nan=bound).clip(0.0, bound)
    total = sum(float(each[rows].mean()) for rows in units)
    noisy = (total + noise * bound * float(randomness.normals(1)[0])) / len(units)
    return min(max(noisy, 0.0), bound)


def score_charge(noise: float, scores: int) -> Charge:
    """What `scores` scores cost; they may be of the same patients, and each may follow from those before."""
    return Charge(noise, 1.0, scores)


def study_charges(noised: Mapping[str, Mapping[str, float]], noise: float, rounds: int) -> tuple[Charge, ...]:
    """What a study asks for in scores alone: val before each round and after the last, test once.

    Args:
        noised: of each split the scores with noise, and their bounds.
    """
    scores = (rounds + 1) * len(noised["val"]) + len(noised["test"])
    return (score_charge(noise, scores),) if scores else ()
