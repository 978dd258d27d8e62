"""Nothing is called better, worse or best while its interval holds zero."""

import itertools

import pytest

from simulation.compare import wording
from simulation.compare.statistics import Interval

ABOVE, BELOW, HOLDS = Interval(0.02, 0.01, 0.03), Interval(-0.02, -0.03, -0.01), Interval(0.02, -0.01, 0.05)
EDGE = Interval(0.02, 0.0, 0.04)


def test_best_is_said_only_where_every_interval_lies_above_zero() -> None:
    said = wording.best("fedadam", {"fedavg": (ABOVE, 0.01, 1), "fedprox": (ABOVE, 0.01, 1)})
    assert said.startswith("fedadam is the best of these on these sites")
    for other, leans in ((HOLDS, 1), (BELOW, -1), (EDGE, 1), (ABOVE, -1)):
        said = wording.best("fedadam", {"fedavg": (ABOVE, 0.01, 1), "fedprox": (other, 0.01, leans)})
        assert said.startswith("No strategy can be called the best.")
        assert "from fedprox." in said
        assert "fedavg" not in said
    assert "No strategy" in wording.best("fedadam", {"fedavg": (ABOVE, 0.2, 1)})
    assert "nothing can be said of which is best" in wording.best("fedadam", {})


@pytest.mark.parametrize(("found", "p"), list(itertools.product([HOLDS, EDGE], [1e-9, 0.01, 0.5])))
def test_an_interval_that_holds_zero_is_never_a_difference(found: Interval, p: float) -> None:
    said = wording.difference("fedavg", found, p, 1)
    assert said == "no difference from fedavg is shown: the interval holds zero"
    assert wording.gain(found, p, 1) == "not shown"


def test_a_difference_needs_interval_and_ranks() -> None:
    assert wording.difference("fedavg", ABOVE, 0.01, 1) == "higher than fedavg on these sites"
    assert wording.difference("fedavg", BELOW, 0.01, -1) == "lower than fedavg on these sites"
    said = wording.difference("fedavg", BELOW, 0.2, -1)
    assert said == "no difference is shown: the interval lies below zero, but the ranks do not agree (p = 0.2)"


def test_ranks_that_lean_the_other_way_bear_nothing_out() -> None:
    said = wording.difference("fedavg", ABOVE, 0.01, -1)
    assert said == "no difference is shown: the interval lies above zero, but the ranks lean below it (p = 0.01)"
    assert wording.gain(ABOVE, 0.01, -1) == wording.gain(BELOW, 0.01, 1) == "not shown"


def test_the_same_is_said_of_the_same() -> None:
    assert wording.difference("fedavg", Interval(0, 0, 0), 1.0, 0) == "the same as fedavg on every image"


def test_every_hospital_gains_only_when_each_is_shown_to() -> None:
    assert wording.gains("fedavg", ["gains", "gains"]) == "With fedavg every hospital gains: each is shown to."
    said = wording.gains("fedavg", ["gains", "loses", "not shown", "not shown"])
    assert said.startswith("It is not shown that every hospital gains with fedavg")
    assert said.endswith("Of 4: shown to gain 1, shown to lose 1, neither shown 2.")


def test_few_sites_and_seeds_are_warned_of() -> None:
    said = wording.few(4, 1, crossed=True)
    assert "80 of 100" in said
    assert "One seed says nothing" in said
    assert wording.few(20, 20, crossed=True) == "The intervals come from 20 sites and 20 seeds."
    assert "Each seed makes other sites" in wording.few(20, 20, crossed=False)
