"""Poisson sampling: each patient comes into a step by a coin of its own, with one of its images."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from client.privacy.randomness import Randomness
from client.privacy.settings import Unit

Rows = npt.NDArray[np.intp]


def rows_by_unit(patients: Sequence[str], unit: Unit) -> list[Rows]:
    """The rows of each unit that the guarantee protects: those of one patient, or each row by itself.

    Args:
        patients: whose each row is.
    """
    if unit == "example":
        return [np.array([row]) for row in range(len(patients))]
    rows: dict[str, list[int]] = {}
    for row, patient in enumerate(patients):
        rows.setdefault(patient, []).append(row)
    return [np.array(own) for own in rows.values()]


def draw(units: Sequence[Rows], rate: float, randomness: Randomness) -> Rows:
    """The rows of one step: of each unit, with probability `rate`, one row, all alike likely. May be empty.

    However many images a patient has, one of them at most is in a step.
    """
    coins = randomness.uniforms(len(units)) < rate
    places = randomness.uniforms(len(units))
    return np.array(
        [rows[int(place * len(rows))] for rows, coin, place in zip(units, coins, places, strict=True) if coin],
        np.intp,
    )
