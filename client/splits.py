"""How a site's patients are dealt to train, val and test: whole, seeded, and never leaving a needed split empty."""

from collections.abc import Hashable, Iterable, Sequence

import numpy as np


def units(labels: Sequence[Iterable[Hashable]]) -> list[int]:
    """Items that share any label belong together: the unit's number of each item, counted by first appearance.

    >>> units([("ann", "scan 1"), ("bob", "scan 2"), ("ann", "scan 3"), ("eve", "scan 2")])
    [0, 1, 0, 1]
    """
    parent = list(range(len(labels)))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    first: dict[Hashable, int] = {}
    for item, keys in enumerate(labels):
        for key in keys:
            parent[root(item)] = root(first.setdefault(key, item))
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(item), len(numbers)) for item in range(len(labels))]


def share_out(members: Iterable[int], seed: int, val: float, test: float) -> dict[int, str]:
    """The split of each unit.

    val and test get their shares of the number of units, rounded; val at least one unit, and test gives way
    before val where there are too few for train to keep one.

    Args:
        members: numbers of units, repeated or not; at least two distinct ones.
        val, test: shares between 0 and 1, together below 1.
    """
    distinct = sorted(set(members))
    count = len(distinct)
    for_val = min(max(1, round(val * count)), count - 1)
    for_test = min(round(test * count), count - 1 - for_val)
    order = np.random.default_rng(seed).permutation(count)
    words = ["val"] * for_val + ["test"] * for_test + ["train"] * (count - for_val - for_test)
    return {distinct[place]: word for place, word in zip(order.tolist(), words, strict=True)}
