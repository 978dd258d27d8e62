import numpy as np
import pytest

from strategies import STRATEGIES
from strategies.testbed import Site
from tests.strategies.quadratics import LOSSES, LR, at, path


def run(lam: float, rounds: int, steps: int, lost: int = 0) -> tuple[float, list[float]]:
    """The global model and the sites' own after some rounds of the two quadratics; site 1 loses round `lost`."""
    strategy = STRATEGIES["ditto"](lam=lam)
    sites = [Site(str(i), loss, 1, steps, LR) for i, loss in enumerate(LOSSES)]
    x = at(0.0)
    for number in range(1, rounds + 1):
        replies = [site.answer(strategy, number, x, {}) for site in sites]
        counted = [reply for reply in replies if not (number == lost and reply.site == "1")]
        x = strategy.aggregate(x, counted)
        for reply in counted:
            sites[int(reply.site)].accepted = number
    return x["w"].item(), [site.personal(strategy, x)["w"].item() for site in sites]


def test_the_global_model_is_fedavgs_bit_for_bit() -> None:
    assert path(STRATEGIES["ditto"](), 30, 5) == path(STRATEGIES["fedavg"](), 30, 5)


def test_own_models_rest_between_their_optimum_and_the_global_model() -> None:
    # a_i (v - b_i) + lam (v - x) = 0
    x, own = run(0.5, 300, 5)
    assert x == pytest.approx(2.6805322851, abs=1e-9)
    assert own == pytest.approx([0.5 * x / 1.5, (12 + 0.5 * x) / 3.5], abs=1e-9)


def test_without_a_pull_they_are_models_of_their_sites_alone() -> None:
    _, own = run(0.0, 300, 5)
    assert own == pytest.approx([0.0, 4.0], abs=1e-12)


def test_two_rounds_by_hand() -> None:
    # site 2, K = 1, lam = 1: v = 0 - .1 (-12 + 0) = 1.2; x = .6; v = 1.2 - .1 (3 (1.2 - 4) + (1.2 - .6)) = 1.98
    assert run(1.0, 1, 1)[1] == pytest.approx([0.0, 1.2], abs=1e-15)
    assert run(1.0, 2, 1)[1] == pytest.approx([0.06, 1.98], abs=1e-14)


def test_a_lost_reply_leaves_the_sites_own_model_where_it_was() -> None:
    # site 2 loses round 1 and begins anew from x = 0 of site 1: v = 1.2 again
    assert run(1.0, 2, 1, lost=1)[1] == pytest.approx([0.0, 1.2], abs=1e-15)


def test_a_site_uses_the_global_model_until_it_has_one_of_its_own() -> None:
    x = {"w": np.array([7.0])}
    assert Site("a", LOSSES[0], 1, 1, LR).personal(STRATEGIES["ditto"](), x)["w"] is x["w"]
