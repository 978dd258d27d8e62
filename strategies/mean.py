"""The weighted mean of models that arrive one by one: exact, in any order, in memory independent of their number."""

import math
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Update, Weighting
from strategies.groups import VARIANCE, group_of, mean_of_variance
from strategies.local import Arrays
from strategies.sums import CompensatedSum, Float64


def weighted_mean(
    x: Arrays, updates: Iterable[Update], weighting: Weighting, without: Collection[str] = ()
) -> dict[str, Float64]:
    """sum_i p_i y_i for parameters; pooled mean and variance for statistics; the maximum for counters.

    p_i = n_i / sum n ("examples") or 1 / S ("uniform") over the updates received. Tensors named in `without` are
    as in x.

    Returns:
        Arrays of x's shapes: float64, but counters, and what is left out, in their own dtype.

    Raises:
        ValueError: no updates, or an update that does not fit x (names the site and the tensor).
    """
    parameters, buffers = ParameterMean(x, without), BufferMean(x, without)
    for update in checked(x, updates):
        weight = share(update, weighting)
        parameters.add(update.arrays, weight)
        buffers.add(update.arrays, weight)
    return {name: x[name] for name in without} | parameters.mean() | buffers.mean()


class ParameterMean:
    """sum_i w_i y_i / sum_i w_i over the trainable parameters of models that arrive one by one.

    Args:
        x: the global model.
        without: names of tensors that are left out.
    """

    def __init__(self, x: Arrays, without: Collection[str] = ()) -> None:
        self._x = x
        names = (name for name, a in x.items() if group_of(name, a.dtype) == "parameter" and name not in without)
        self._sums = {name: CompensatedSum(x[name].size) for name in names}
        self._weights: list[float] = []

    def add(self, y: Arrays, weight: float) -> None:
        """Take a model in, with the weight w_i, at least 0."""
        self._weights.append(weight)
        for name, running in self._sums.items():
            running.add(y[name], weight)

    @property
    def total(self) -> float:
        """sum_i w_i, the same in whatever order they came."""
        return math.fsum(self._weights)

    def mean(self) -> dict[str, Float64]:
        """The mean of what was taken in, by name, in x's shapes."""
        total = self.total
        return {name: s.divided_by(total).reshape(self._x[name].shape) for name, s in self._sums.items()}


class BufferMean:
    """The buffers of models that arrive one by one: pooled mean and variance of statistics, maximum of counters.

    Pooled by the law of total variance, p_i = w_i / sum w: mean = sum p_i m_i, var = sum p_i (v_i + (m_i - m_x)^2)
    - (mean - m_x)^2, where the shift by the global mean m_x keeps the subtraction harmless.

    Args:
        x: the global model.
        without: names of tensors that are left out.
    """

    def __init__(self, x: Arrays, without: Collection[str] = ()) -> None:
        self._x = x
        groups = {name: group_of(name, a.dtype) for name, a in x.items() if name not in without}
        self._sums = {name: CompensatedSum(x[name].size) for name, group in groups.items() if group == "statistic"}
        self._counters = [name for name, group in groups.items() if group == "counter"]
        self._most: dict[str, npt.NDArray[Any]] = {}
        self._weights: list[float] = []

    def add(self, y: Arrays, weight: float) -> None:
        """Take a model's buffers in, with the weight w_i, at least 0."""
        self._weights.append(weight)
        for name, running in self._sums.items():
            running.add(self._moment(name, y), weight)
        for name in self._counters:
            self._most[name] = np.maximum(self._most.get(name, y[name]), y[name])

    def mean(self) -> dict[str, npt.NDArray[Any]]:
        """The pooled statistics, in float64, and the counters, in their own dtype."""
        x, total = self._x, math.fsum(self._weights)
        pooled: dict[str, Any] = {name: s.divided_by(total).reshape(x[name].shape) for name, s in self._sums.items()}
        for name in pooled:
            if (pair := self._pair(name)) is not None:
                pooled[name] = np.maximum(pooled[name] - (pooled[pair] - x[pair]) ** 2, 0.0)
        return pooled | self._most

    def _pair(self, name: str) -> str | None:
        pair = mean_of_variance(name)
        return pair if name.endswith(VARIANCE) and pair in self._sums else None

    def _moment(self, name: str, y: Arrays) -> npt.NDArray[Any]:
        """What is summed for one statistic: itself, or for a variance the second moment about the global mean."""
        if (pair := self._pair(name)) is None:
            return y[name]
        return np.asarray(y[name] + (np.asarray(y[pair], np.float64) - self._x[pair]) ** 2)


def share(update: Update, weighting: Weighting) -> float:
    """What an update weighs before the weights are divided by their sum: n_i, or 1."""
    return float(update.examples) if weighting == "examples" else 1.0


def checked(x: Arrays, updates: Iterable[Update]) -> Iterator[Update]:
    """The updates one by one, each once it fits x.

    Raises:
        ValueError: one does not fit (names the site and the tensor), or there was none.
    """
    none = True
    for update in updates:
        check_fits(x, update)
        none = False
        yield update
    if none:
        raise ValueError("no updates to aggregate")


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
