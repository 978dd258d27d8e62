"""Units and shares: together what belongs together, and no needed split empty."""

from collections import Counter

import pytest

from client.splits import share_out, units


def test_units_join_over_any_shared_label() -> None:
    assert units([("a",), ("b",), ("c", "a"), ("d",), ("b", "c")]) == [0, 0, 0, 1, 0]


def test_items_without_a_common_label_stay_apart() -> None:
    assert units([("a",), ("b",), ("c",)]) == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "val", "test", "expected"),
    [
        (100, 0.15, 0.2, (65, 15, 20)),
        (10, 0.15, 0.2, (6, 2, 2)),
        (2, 0.15, 0.2, (1, 1, 0)),
        (3, 0.15, 0.2, (1, 1, 1)),
        (3, 0.15, 0.1, (2, 1, 0)),
        (4, 0.01, 0.0, (3, 1, 0)),
        (4, 0.5, 0.49, (1, 2, 1)),
    ],
)
def test_shares_are_counted_in_units(count: int, val: float, test: float, expected: tuple[int, int, int]) -> None:
    words = share_out([*range(count), 0, 0], seed=1, val=val, test=test)
    made = Counter(words.values())
    assert (made["train"], made["val"], made["test"]) == expected


def test_the_seed_decides() -> None:
    one, again, other = (share_out(range(40), seed, 0.2, 0.2) for seed in (1, 1, 2))
    assert one == again
    assert one != other
