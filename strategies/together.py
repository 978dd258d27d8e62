"""For rules that see all updates side by side: ranks, distances. Memory grows with the number of updates."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from strategies.base import Strategy, Update
from strategies.groups import group_of
from strategies.local import Arrays
from strategies.mean import BufferMean, checked
from strategies.sums import Float64

PART = 1 << 18
"""Values held in float64 at a time, over all updates together: 2 MiB."""


def gather(x: Arrays, updates: Iterable[Update], rule: Strategy) -> list[Update]:
    """All updates, sorted by site, so that the order of arrival is forgotten.

    Raises:
        ValueError: fewer than `rule.fewest`, or one that does not fit x.
    """
    together = sorted(checked(x, updates), key=lambda update: update.site)
    if len(together) < rule.fewest:
        raise ValueError(
            f"{type(rule).__name__} needs the updates of at least {rule.fewest} sites, not of {len(together)}:"
            " ask more sites, or choose another federation.strategy"
        )
    return together


def columns(x: Arrays, updates: Sequence[Update]) -> Iterator[tuple[str, slice, Float64]]:
    """The trainable parameters of all updates side by side, a stretch of coordinates at a time.

    Yields:
        The tensor's name, the stretch of its flat coordinates, and the values, (updates, coordinates) in float64.
    """
    width = max(1, PART // len(updates))
    for name, a in x.items():
        if group_of(name, a.dtype) != "parameter":
            continue
        flat = [update.arrays[name].reshape(-1) for update in updates]
        for start in range(0, a.size, width):
            part = slice(start, min(start + width, a.size))
            values = np.empty((len(updates), part.stop - start))
            for row, y in zip(values, flat, strict=True):
                row[:] = y[part]
            yield name, part, values


def pooled_buffers(x: Arrays, updates: Iterable[Update]) -> dict[str, np.ndarray]:
    """The buffers of the updates, pooled by examples: what is left beside the trainable parameters."""
    buffers = BufferMean(x)
    for update in updates:
        buffers.add(update.arrays, float(update.examples))
    return buffers.mean()
