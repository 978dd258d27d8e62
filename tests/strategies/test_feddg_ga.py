import math

import pytest

from strategies import STRATEGIES, Update
from tests.strategies.quadratics import at, path, update


def reply(site: str, value: float, before: float, after: float, examples: int = 1) -> Update:
    return update(site, value, examples, val__loss=before, val__loss_after=after)


def test_three_rounds_by_hand() -> None:
    # Round 1, K = 1: y = (0, 1.2), own losses (0, 11.76), x = .6.
    # Round 2 of 4: losses of x (.18, 17.34), gaps (.18, 5.58), so a = .5 -+ .2 (1 - 1/4) = (.35, .65)
    #          y = (.54, 1.62), x = .189 + 1.053 = 1.242; own losses (.1458, 8.4966)
    # Round 3: losses of x (.771282, 11.409846), gaps (.625482, 2.913246), a = (.35, .65) -+ .2 (1 - 2/4)
    #          y = (1.1178, 2.0694), x = .25 * 1.1178 + .75 * 2.0694 = 1.8315
    strategy = STRATEGIES["feddg_ga"]()
    assert path(strategy, 4, 1)[:3] == pytest.approx([0.6, 1.242, 1.8315], abs=1e-12)


def test_three_sites_by_hand() -> None:
    strategy = STRATEGIES["feddg_ga"](step=0.3)
    strategy.aggregate(at(0.0), [reply(site, 0.0, 9.0, 1.0) for site in "abc"])
    # gaps 4, 1, 1, mean 2: a = 1/3 + .3 (1, -1/2, -1/2)
    x = strategy.aggregate(at(0.0), [reply("a", 1.0, 5.0, 0.0), reply("b", 0.0, 2.0, 0.0), reply("c", 0.0, 2.0, 0.0)])
    assert x["w"][0] == pytest.approx(1 / 3 + 0.3, abs=1e-15)
    assert float(strategy.state["weight.b"]) == pytest.approx(1 / 3 - 0.15, abs=1e-15)


def test_weights_are_clipped_and_sum_to_one() -> None:
    strategy = STRATEGIES["feddg_ga"](step=1.0)
    strategy.aggregate(at(0.0), [reply(site, 0.0, 9.0, 1.0) for site in "abc"])
    # a = 1/3 + (1, -1/2, -1/2) = (1, 0, 0) once clipped
    again = [reply("a", 1.0, 5.0, 0.0), reply("b", 7.0, 2.0, 0.0), reply("c", 7.0, 2.0, 0.0)]
    assert strategy.aggregate(at(0.0), again)["w"][0] == 1.0
    assert [float(strategy.state[f"weight.{site}"]) for site in "abc"] == [1.0, 0.0, 0.0]
    assert strategy.aggregate(at(5.0), again[1:])["w"][0] == 5.0  # none of those that weigh something replied


def test_the_first_round_is_a_plain_mean_whatever_the_examples() -> None:
    sites = [reply("a", 1.0, 3.0, 1.0, examples=90), reply("b", 5.0, 2.0, 1.0)]
    assert STRATEGIES["feddg_ga"]().aggregate(at(0.0), sites)["w"][0] == 3.0


def test_equal_gaps_leave_the_weights_as_they_are() -> None:
    strategy = STRATEGIES["feddg_ga"]()
    for _ in range(3):
        x = strategy.aggregate(at(0.0), [reply("a", 1.0, 3.0, 1.0), reply("b", 5.0, 4.0, 2.0)])
    assert x["w"][0] == 3.0


def test_the_step_shrinks_to_nothing_at_the_end_of_the_study() -> None:
    strategy = STRATEGIES["feddg_ga"]()
    strategy.rounds = 1
    strategy.aggregate(at(0.0), [reply("a", 0.0, 9.0, 1.0), reply("b", 0.0, 9.0, 1.0)])
    assert strategy.aggregate(at(0.0), [reply("a", 1.0, 9.0, 1.0), reply("b", 5.0, 2.0, 1.0)])["w"][0] == 3.0


def test_a_missing_site_keeps_its_weight_and_its_last_loss() -> None:
    strategy = STRATEGIES["feddg_ga"](step=0.2)
    strategy.aggregate(at(0.0), [reply(site, 0.0, 9.0, 1.0) for site in "abc"])
    # round 2, c is missing: gaps (3, 1), so a = 1/3 +- .2, and x is over their sum
    x = strategy.aggregate(at(0.0), [reply("a", 1.0, 4.0, 2.0), reply("b", 0.0, 2.0, 2.0)])
    assert x["w"][0] == pytest.approx((1 / 3 + 0.2) / (2 / 3), abs=1e-15)
    # round 3: gaps a 5 - 2 = 3, b 5 - 2 = 3, c 7 - 1 = 6: centred (-1, -1, 2), so a = (1/3 + .1, 1/3 - .3, 1/3 + .2)
    x = strategy.aggregate(at(0.0), [reply("a", 0.0, 5.0, 2.0), reply("b", 0.0, 5.0, 2.0), reply("c", 1.0, 7.0, 2.0)])
    assert x["w"][0] == pytest.approx(1 / 3 + 0.2, abs=1e-15)


def test_a_newcomer_weighs_as_much_as_the_mean_of_the_others() -> None:
    strategy = STRATEGIES["feddg_ga"]()
    strategy.aggregate(at(0.0), [reply("a", 0.0, 9.0, 1.0), reply("b", 0.0, 9.0, 1.0)])
    x = strategy.aggregate(at(0.0), [reply("a", 0.0, 2.0, 1.0), reply("b", 0.0, 2.0, 1.0), reply("c", 3.0, 9.0, 1.0)])
    assert x["w"][0] == pytest.approx(1.0, abs=1e-15)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"site a: val\.loss = nan must be a finite number"):
        STRATEGIES["feddg_ga"]().aggregate(at(0.0), [reply("a", 0.0, math.nan, 1.0)])
