import pytest

from strategies import STRATEGIES
from strategies.testbed import Site
from tests.strategies.quadratics import LOSSES, LR, at, path, update


def test_five_local_steps_reach_the_optimum_that_fedavg_misses() -> None:
    models = path(STRATEGIES["scaffold"](), 200, 5)
    assert models[0] == pytest.approx(1.66386, abs=1e-12)  # no variates yet: mean of 0 and 4 (1 - .7^5)
    assert models[-1] == pytest.approx(3.0, abs=1e-12)


def test_unequal_steps_reach_it_too() -> None:
    assert path(STRATEGIES["scaffold"](), 400, (2, 7))[-1] == pytest.approx(3.0, abs=1e-11)


def test_two_rounds_by_hand() -> None:
    # round 1, K = 1: gradients 0 and -12, x = .6, c_1 = 0, c_2 = -12, c = -6
    # round 2: y_1 = .6 - .1 (.6 - 0 - 6) = 1.14, y_2 = .6 - .1 (-10.2 + 12 - 6) = 1.02
    strategy = STRATEGIES["scaffold"]()
    assert path(strategy, 2, 1) == pytest.approx([0.6, 1.08], abs=1e-14)
    assert strategy.state["w"][0] == pytest.approx((0.6 - 10.2) / 2, abs=1e-13)  # mean gradient at .6


def test_variates_become_the_gradients_at_the_optimum() -> None:
    strategy, sites = STRATEGIES["scaffold"](), [Site(str(i), f, 1, 5, LR) for i, f in enumerate(LOSSES)]
    x = at(0.0)
    for number in range(1, 200):
        received = strategy.broadcast(x)
        x = strategy.aggregate(x, [site.answer(strategy, number, x, received) for site in sites])
        for site in sites:
            site.accepted = number
        variates = [site.memory.at(number)["w"][0] for site in sites]
        assert strategy.state["w"][0] == pytest.approx(sum(variates) / 2, abs=1e-12)
    assert variates == pytest.approx([3.0, -3.0], abs=1e-10)


def test_the_server_variate_moves_by_the_share_of_sites_that_replied() -> None:
    strategy = STRATEGIES["scaffold"]()
    # only site 2 replies: c_2 = -12, so c = 1/2 * -12; then y_1 = 1.2 - .1 (1.2 - 6), y_2 = 1.2 - .1 (-8.4 + 12 - 6)
    assert path(strategy, 2, 1, silent={(1, 0)}) == pytest.approx([1.2, (1.68 + 1.44) / 2], abs=1e-14)


def test_the_server_learning_rate_scales_the_model_alone() -> None:
    strategy = STRATEGIES["scaffold"](server_lr=0.5)
    assert path(strategy, 1, 1)[0] == pytest.approx(0.3, abs=1e-15)
    assert strategy.state["w"][0] == pytest.approx(-6.0, abs=1e-13)


def test_a_lost_reply_is_as_if_the_site_had_not_trained() -> None:
    missing = {(2, 0), (3, 1), (7, 0)}
    silent, lost = (path(STRATEGIES["scaffold"](), 20, 5, **{how: missing}) for how in ("silent", "lost"))
    assert lost == silent
    assert path(STRATEGIES["scaffold"](), 300, 5, lost=missing)[-1] == pytest.approx(3.0, abs=1e-11)


def test_replies_count_alike_whatever_their_examples() -> None:
    assert path(STRATEGIES["scaffold"](), 10, 5, examples=(100, 1)) == path(STRATEGIES["scaffold"](), 10, 5)


def test_a_reply_without_its_learning_rates_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"site a: the update comes without train\.travel"):
        STRATEGIES["scaffold"]().aggregate(at(0.0), [update("a", 1.0)])
