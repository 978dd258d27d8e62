"""Sums of arrays that arrive one by one, which do not depend on the order in which they came."""

from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]

NOTHING: Float64 = np.empty(0)

AT_ONCE = 4
"""Arrays that are taken in together: a pass over the sum costs as much as reading eight of float32. Twice as many
would take 0.9 times as long, and hold twice the memory."""


def flat(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array in one piece, (n,), in float32 if it is, else in float64: what compiled loops take."""
    if values.dtype != np.float32:
        values = np.asarray(values, np.float64)
    return values.ravel()


class CompensatedSum:
    """A float64 sum with its rounding error carried along (TwoSum; Knuth, TAOCP vol. 2, 4.2.2).

    Two floats a sum carry 106 bits, so the rounded result does not depend on the order of the terms, and
    engines in which replies overtake each other agree bit for bit.

    Args:
        size: elements of the arrays.
    """

    def __init__(self, size: int) -> None:
        self._high: Float64 = np.empty(size)
        self._low: Float64 = np.empty(size)
        self._fresh = True
        self._waiting: list[npt.NDArray[Any]] = []
        self._weights: list[float] = []

    def add(self, values: npt.NDArray[Any], weight: float) -> None:
        """Add `weight * values`, of any shape. Exact for float32 values and whole weights below 2^29.

        A few arrays are taken in at a time: `values` may not change before the sum is read.

        Raises:
            ValueError: the array has another size; compiled loops would read past its end.
        """
        values = flat(values)
        if values.size != self._high.size:
            raise ValueError(f"an array of {values.size} numbers in a sum of {self._high.size}")
        if self._waiting and self._waiting[0].dtype != values.dtype:
            self._take_in()
        self._waiting.append(values)
        self._weights.append(weight)
        if len(self._waiting) == AT_ONCE:
            self._take_in()

    def divided_by(self, divisor: float) -> Float64:
        """The sum over `divisor`, made in the sum's own memory: it is used up.

        Raises:
            ValueError: nothing was added, or the sum was read before.
        """
        from strategies import compiled

        self._take_in()
        if self._fresh:
            raise ValueError("a sum of nothing, or one that was read before")
        compiled.divide(self._high, self._low, divisor)
        mean, self._high, self._low, self._fresh = self._high, NOTHING, NOTHING, True
        return mean

    def _take_in(self) -> None:
        from strategies import compiled  # here, since only who sums should wait for the compiler

        if self._waiting:
            missing = AT_ONCE - len(self._waiting)
            weights = np.array(self._weights + [0.0] * missing)
            compiled.add(self._high, self._low, self._fresh, weights, *self._waiting, *self._waiting[-1:] * missing)
            self._fresh, self._waiting, self._weights = False, [], []
