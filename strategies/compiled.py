"""The inner loops of sums and distances, compiled by Numba when this file is imported: a second, once a process.

Bandwidth is what they cost. To read and write a compensated sum takes eight times the bytes of a float32 array that
goes into it, so it takes in several arrays a pass. Nothing is contracted or reordered, but where a loop says so.
"""

from numba import boolean, float32, float64, njit, types, void

from strategies.sums import AT_ONCE


@njit(inline="always")
def _two_sum(high: float, low: float, term: float) -> tuple[float, float]:
    """`high + low` and a term as such a pair again: what rounds off in `high` goes to `low`, exactly."""
    total = high + term
    taken = total - high
    return total, low + ((high - (total - taken)) + (term - taken))


def _values(dtype: types.Type) -> types.Type:
    return types.Array(dtype, 1, "C", readonly=True)  # takes writable arrays as well


def _add(dtype: types.Type) -> types.Type:
    return void(float64[::1], float64[::1], boolean, float64[::1], *[_values(dtype)] * AT_ONCE)


@njit([_add(float32), _add(float64)], nogil=True)
def add(high, low, fresh, weights, a, b, c, d):  # type: ignore[no-untyped-def]
    """Add weighted arrays to `high + low`, in place.

    Args:
        high: the sums, (n,) in float64.
        low: what was rounded off in them, (n,) in float64.
        fresh: nothing was summed so far, whatever `high` and `low` hold.
        weights: of the arrays, (4,) in float64. A product is exact for float32 values and whole weights below 2^29.
        a, b, c, d: the arrays, (n,), all of float32 or all of float64.
    """
    for i in range(high.size):
        total, lost = (0.0, 0.0) if fresh else (high[i], low[i])
        total, lost = _two_sum(total, lost, float64(a[i]) * weights[0])
        total, lost = _two_sum(total, lost, float64(b[i]) * weights[1])
        total, lost = _two_sum(total, lost, float64(c[i]) * weights[2])
        total, lost = _two_sum(total, lost, float64(d[i]) * weights[3])
        high[i], low[i] = total, lost


@njit(void(float64[::1], float64[::1], float64), nogil=True, error_model="numpy")
def divide(high, low, divisor):  # type: ignore[no-untyped-def]
    """`high <- (high + low) / divisor`, each (n,) in float64; by zero it is no number, as everywhere in numpy."""
    for i in range(high.size):
        high[i] = (high[i] + low[i]) / divisor


_WIDTHS = _values(float32), _values(float64)


@njit([float64(a, b) for a in _WIDTHS for b in _WIDTHS], nogil=True, fastmath={"reassoc"})
def squared_distance(a, b):  # type: ignore[no-untyped-def]
    """|a - b|^2 in float64 of two arrays, (n,), of float32 or float64, summed in the compiler's order."""
    total = 0.0
    for i in range(a.size):
        step = float64(a[i]) - float64(b[i])
        total += step * step
    return total
