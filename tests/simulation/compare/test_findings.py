"""The numbers of a comparison by hand."""

import pytest

from simulation.compare.findings import Entrant, best_words, compared, curve, gains, matrix, standing
from simulation.compare.statistics import Key


def entrant(name: str, dice: dict[Key, float], **how: object) -> Entrant:
    return Entrant(name, bool(how.get("strategy", True)), dice, dice, how.get("results", {}))  # type: ignore[arg-type]


def result(dice: list[float], seconds: float = 2.0) -> dict[str, object]:
    rounds = [
        {"round": n, "global_dice": value, "bytes_down": 100, "bytes_up": 50} for n, value in enumerate(dice, 1)
    ]
    return {"rounds": rounds, "seconds": {"total": seconds}}


A, B, C = Key(0, "a", "1"), Key(0, "a", "2"), Key(0, "b", "1")
D = Key(1, "a", "1")


def test_a_row_by_hand() -> None:
    runs = {0: [result([0.1, 0.2], 4.0)], 1: [result([0.3], 2.0)]}
    row = standing(entrant("fedavg", {A: 0.9, B: 0.7, C: 0.2, D: 0.5}, results=runs))
    assert row.seeds == pytest.approx((0.6, 0.5))
    assert row.dice == pytest.approx(0.55)
    assert row.deviation == pytest.approx(0.05 * 2**0.5)
    assert row.site_mean == pytest.approx(((0.8 + 0.2) / 2 + 0.5) / 2)
    assert row.worst_site == pytest.approx((0.2 + 0.5) / 2)
    assert row.bytes == (300 + 150) / 2
    assert row.seconds == 3.0


def test_one_seed_has_no_deviation_and_a_baseline_sends_nothing() -> None:
    row = standing(entrant("local", {A: 0.5}, strategy=False, results={0: [result([0.1]), result([0.1])]}))
    assert row.deviation is None
    assert row.bytes is None
    assert row.seconds == 4.0


def test_a_strategy_against_itself_is_the_same_on_every_image() -> None:
    dice = {Key(0, site, f"{n}"): 0.05 * n for site in "ab" for n in range(9)}
    (row,) = compared([entrant("fedavg", dice), entrant("twin", dict(dice))], "fedavg", crossed=True)
    assert (row.interval.estimate, row.interval.low, row.interval.high, row.p, row.p_holm) == (0, 0, 0, 1, 1)
    assert (row.better, row.worse, row.same) == (0, 0, 18)
    assert row.verdict == "the same as fedavg on every image"
    assert "No strategy can be called the best" in best_words(
        [entrant("fedavg", dice), entrant("twin", dict(dice))], crossed=True
    )


def test_a_clear_difference_is_found_with_its_sign() -> None:
    base = {Key(0, site, f"{n}"): 0.5 for site in "abcd" for n in range(20)}
    up = {key: value + 0.1 + 0.001 * int(key.image) for key, value in base.items()}
    rows = compared([entrant("fedavg", base), entrant("up", up)], "fedavg", crossed=True)
    assert rows[0].verdict == "higher than fedavg on these sites"
    assert rows[0].better == 80
    both = [entrant("fedavg", base), entrant("up", up)]
    assert best_words(both, crossed=True).startswith("up is the best of these")
    assert best_words(both[::-1], crossed=True).startswith("up is the best of these")


def test_a_mean_that_few_images_carry_is_no_difference() -> None:
    """Four images of five lose a little, one gains much: the interval lies above zero, the ranks lean below it."""
    base = {Key(0, site, f"{n}"): 0.5 for site in "abcd" for n in range(25)}
    moved = {key: value + (0.2 if int(key.image) < 5 else -0.01) for key, value in base.items()}
    both = [entrant("fedavg", base), entrant("moved", moved)]
    (row,) = compared(both, "fedavg", crossed=True)
    assert row.interval.low > 0
    assert row.p_holm < 0.05
    assert (row.leans, row.better, row.worse) == (-1, 20, 80)
    assert "but the ranks lean below it" in row.verdict
    assert best_words(both, crossed=True).startswith("No strategy can be called the best. moved")


def test_hospitals_of_two_seeds_are_two_unless_they_are_the_same() -> None:
    together = {Key(s, "a", f"{n}"): 0.8 + 0.01 * n for s in (0, 1) for n in range(12)}
    alone = dict.fromkeys(together, 0.5)
    found = gains(entrant("fedavg", together), entrant("local", alone), crossed=False)
    assert [(one.seed, one.site, one.images, one.verdict) for one in found] == [
        (0, "a", 12, "gains"),
        (1, "a", 12, "gains"),
    ]
    (one,) = gains(entrant("fedavg", together), entrant("local", alone), crossed=True)
    assert (one.seed, one.images) == (None, 24)
    assert one.alone + one.interval.estimate == pytest.approx(0.855)


def test_three_images_cannot_show_a_gain() -> None:
    together = {Key(0, "a", f"{n}"): 0.9 for n in range(3)}
    (one,) = gains(entrant("fedavg", together), entrant("local", dict.fromkeys(together, 0.1)), crossed=True)
    assert one.interval.low > 0
    assert one.verdict == "not shown"


def test_models_on_sites() -> None:
    alone = {"a": {A: 0.9, B: 0.7, C: 0.1}, "b": {A: 0.0, B: 0.2, C: 0.6}}
    (table,) = matrix(alone, crossed=True)
    assert table.sites == ("a", "b")
    assert table.dice == (pytest.approx((0.8, 0.1)), pytest.approx((0.1, 0.6)))
    seeds = matrix({"a": {A: 0.9, D: 0.4}}, crossed=False)
    assert [(one.seed, one.dice) for one in seeds] == [(0, ((0.9,),)), (1, ((0.4,),))]


def test_a_curve_ends_with_the_shortest_run() -> None:
    found = curve({0: [result([0.1, 0.3, 0.5])], 1: [result([0.3, 0.5])]})
    assert found == ((1, pytest.approx(0.2), 0.1, 0.3), (2, pytest.approx(0.4), 0.3, 0.5))
