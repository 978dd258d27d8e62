import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import EXACT, at, path, updates


def test_exact_local_solves_are_done_after_one_round() -> None:
    # alpha = 1: y = (0, 3), h = -1.5, x = 1.5 + 1.5; then y = (1.5, 3), h = -.75, x = 2.25 + .75; then h = -.375
    strategy = STRATEGIES["feddyn"](alpha=1.0)
    assert path(strategy, 3, EXACT) == pytest.approx([3.0, 3.0, 3.0], abs=1e-12)
    assert strategy.state["w"][0] == pytest.approx(-0.375, abs=1e-12)


def test_five_local_steps_reach_the_optimum_that_fedavg_misses() -> None:
    assert path(STRATEGIES["feddyn"](alpha=1.0), 400, 5)[-1] == pytest.approx(3.0, abs=1e-12)


def test_two_rounds_by_hand() -> None:
    # K = 1, alpha = .5. Round 1: y = (0, 1.2), h = -.3, x = .6 + .6 = 1.2, g = (0, -.6)
    # round 2: y_1 = 1.2 - .12 = 1.08, y_2 = 1.2 - .1 (3 (1.2 - 4) + .6) = 1.98
    #          h = -.3 - .25 (-.12 + .78) = -.465, x = 1.53 + .93
    assert path(STRATEGIES["feddyn"](alpha=0.5), 2, 1) == pytest.approx([1.2, 2.46], abs=1e-14)


def test_the_server_term_counts_all_sites_of_the_study() -> None:
    # only site 2 replies: y_2 = 3, h = -1 * 1/2 * 3, x = 3 + 1.5
    assert path(STRATEGIES["feddyn"](alpha=1.0), 1, EXACT, silent={(1, 0)}) == pytest.approx([4.5], abs=1e-12)


def test_a_lost_reply_is_as_if_the_site_had_not_trained() -> None:
    missing = {(2, 0), (3, 1), (7, 0)}
    silent, lost = (path(STRATEGIES["feddyn"](alpha=1.0), 20, 5, **{how: missing}) for how in ("silent", "lost"))
    assert lost == silent
    assert path(STRATEGIES["feddyn"](alpha=1.0), 400, 5, lost=missing)[-1] == pytest.approx(3.0, abs=1e-11)


def test_a_failed_round_leaves_the_server_term_as_it_was() -> None:
    strategy = STRATEGIES["feddyn"]()
    x = strategy.aggregate(at(0.0), updates(1.0))
    with pytest.raises(ValueError, match="site b"):
        strategy.aggregate(x, [*updates(3.0), *updates(0.0, (1.0, 2.0))[1:]])
    assert strategy.state["w"][0] == -0.1


def test_alpha_zero_is_an_error() -> None:
    with pytest.raises(ValueError, match="alpha = 0 must be a number above 0"):
        STRATEGIES["feddyn"](alpha=0)
