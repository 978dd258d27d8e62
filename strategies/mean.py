"""The weighted mean of models that arrive one by one: exact, in any order, in memory independent of their number."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Arrays, Update, Weighting
from strategies.groups import VARIANCE, group_of, mean_of_variance

Float64 = npt.NDArray[np.float64]

CHUNK = 1 << 14
"""Elements summed at a time: 128 KiB of float64 stay in a core's cache through the passes of a compensated sum."""


class CompensatedSum:
    """A float64 sum with its rounding error carried along (TwoSum; Knuth, TAOCP vol. 2, 4.2.2).

    Two floats a sum carry 106 bits, so the rounded result does not depend on the order of the terms, and
    engines in which replies overtake each other agree bit for bit.
    """

    def __init__(self, size: int) -> None:
        self.high: Float64 = np.zeros(size)
        self.low: Float64 = np.zeros(size)

    def add(self, values: npt.NDArray[Any], weight: float) -> None:
        """Add `weight * values` (flat). Exact for float32 values and whole weights below 2^29."""
        for start in range(0, values.size, CHUNK):
            part = slice(start, start + CHUNK)
            high, low = self.high[part], self.low[part]
            term = values[part].astype(np.float64)
            term *= weight
            total = high + term
            carried = total - high
            low += (high - (total - carried)) + (term - carried)
            high[:] = total

    def divided_by(self, divisor: float) -> Float64:
        """The sum over `divisor`."""
        return (self.high + self.low) / divisor


def weighted_mean(x: Arrays, updates: Iterable[Update], weighting: Weighting) -> dict[str, Float64]:
    """sum_i p_i y_i for parameters; pooled mean and variance for statistics; the maximum for counters.

    p_i = n_i / sum n ("examples") or 1 / S ("uniform") over the updates received. Pooled by the law of total
    variance: mean = sum p_i m_i, var = sum p_i (v_i + (m_i - m_x)^2) - (mean - m_x)^2, where the shift by the
    global mean m_x keeps the subtraction harmless.

    Returns:
        Arrays of x's shapes: float64, but counters in their own dtype.

    Raises:
        ValueError: no updates, or an update that does not fit x (names the site and the tensor).
    """
    sums = {name: CompensatedSum(a.size) for name, a in x.items() if group_of(name, a.dtype) != "counter"}
    counters: dict[str, npt.NDArray[Any]] = {}
    total = 0.0
    for update in updates:
        check_fits(x, update)
        weight = float(update.examples) if weighting == "examples" else 1.0
        total += weight
        for name, running in sums.items():
            running.add(_moment(name, x, update.arrays).reshape(-1), weight)
        for name in x.keys() - sums.keys():
            counters[name] = np.maximum(counters.get(name, update.arrays[name]), update.arrays[name])
    if not total:
        raise ValueError("no updates to aggregate")
    mean: dict[str, Any] = {name: s.divided_by(total).reshape(x[name].shape) for name, s in sums.items()}
    for name in mean:
        if (pair := _paired_mean(name, x)) is not None:
            mean[name] = np.maximum(mean[name] - (mean[pair] - x[pair]) ** 2, 0.0)
    return mean | counters


def _paired_mean(name: str, x: Arrays) -> str | None:
    pair = mean_of_variance(name)
    return pair if name.endswith(VARIANCE) and pair in x else None


def _moment(name: str, x: Arrays, y: Arrays) -> npt.NDArray[Any]:
    """What is summed for one tensor: itself, or for a variance the second moment about the global mean."""
    if (pair := _paired_mean(name, x)) is None:
        return y[name]
    return y[name] + (np.asarray(y[pair], np.float64) - x[pair]) ** 2


def check_fits(x: Arrays, update: Update) -> None:
    """ValueError unless the update has x's names and shapes and a positive number of examples."""
    if update.examples <= 0:
        raise ValueError(f"site {update.site}: {update.examples} examples; an update needs at least one")
    if x.keys() != update.arrays.keys():
        names = sorted(x.keys() ^ update.arrays.keys())
        raise ValueError(f"site {update.site}: tensors differ from the global model's: {', '.join(names[:3])}")
    for name, array in update.arrays.items():
        if array.shape != x[name].shape:
            raise ValueError(f"site {update.site}: {name} has shape {array.shape}, not {x[name].shape}")


def like(x: Arrays, arrays: Arrays) -> dict[str, npt.NDArray[Any]]:
    """`arrays` in the dtypes of x."""
    return {name: np.asarray(arrays[name], x[name].dtype) for name in x}
