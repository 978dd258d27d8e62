import pytest
import torch

from strategies import STRATEGIES
from strategies.local import EFFECTIVE_STEPS, Journey
from strategies.testbed import federate
from tests.strategies.quadratics import LOSSES, LR, at, path, update


def fixed_point(steps: tuple[int, int], shares: tuple[float, float], normalised: bool) -> float:
    """Where sum_i w_i (x - b_i) = 0, since x - y_i = (1 - (1 - .1 a_i)^K_i) (x - b_i)."""
    moved = [p * (1 - s**k) / (k if normalised else 1) for p, s, k in zip(shares, (0.9, 0.7), steps, strict=True)]
    return 4 * moved[1] / sum(moved)


def test_unequal_steps_end_where_the_algebra_says() -> None:
    expected = fixed_point((2, 5), (0.5, 0.5), normalised=True)
    assert path(STRATEGIES["fednova"](), 400, (2, 5))[-1] == pytest.approx(expected, abs=1e-11)
    drifted = fixed_point((2, 5), (0.5, 0.5), normalised=False)
    assert path(STRATEGIES["fedavg"](), 400, (2, 5))[-1] == pytest.approx(drifted, abs=1e-11)


def test_small_steps_in_unequal_numbers_agree_on_the_optimum() -> None:
    # to first order FedAvg weighs site i by K_i: (9 * 3 * 4) / (1 + 9 * 3) = 27/7, FedNova does not
    x0 = {"w": torch.tensor([3.0], dtype=torch.float64)}
    nova, average = (
        federate(STRATEGIES[name](), x0, LOSSES, (1, 1), 2000, (1, 9), 1e-3)[-1]["w"].item()
        for name in ("fednova", "fedavg")
    )
    assert nova == pytest.approx(3.0, abs=0.02)
    assert average == pytest.approx(27 / 7, abs=0.02)


def test_examples_weigh_the_directions() -> None:
    expected = fixed_point((2, 5), (0.75, 0.25), normalised=True)
    assert path(STRATEGIES["fednova"](), 400, (2, 5), examples=(30, 10))[-1] == pytest.approx(expected, abs=1e-11)
    uniform = path(STRATEGIES["fednova"](weighting="uniform"), 400, (2, 5), examples=(30, 10))[-1]
    assert uniform == pytest.approx(fixed_point((2, 5), (0.5, 0.5), normalised=True), abs=1e-11)


def test_one_round_by_hand() -> None:
    # d = (x - y) / a: (10 - 6) / 2 = 2 and (10 - 0) / 5 = 2; x = 10 - (.75 * 2 + .25 * 5) (.75 * 2 + .25 * 2)
    sites = [update("a", 6.0, 3, train__effective_steps=2.0), update("b", 0.0, 1, train__effective_steps=5.0)]
    assert STRATEGIES["fednova"]().aggregate(at(10.0), sites)["w"][0] == pytest.approx(4.5, abs=1e-14)


def test_equal_steps_are_fedavg() -> None:
    plain = path(STRATEGIES["fedavg"](), 20, 5, examples=(3, 1))
    assert path(STRATEGIES["fednova"](), 20, 5, examples=(3, 1)) == pytest.approx(plain, abs=1e-14)


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.0), (7, 0.0), (1, 0.9), (7, 0.9), (20, 0.5)])
def test_effective_steps_are_how_far_a_constant_gradient_goes(steps: int, momentum: float) -> None:
    y, velocity = 0.0, 0.0
    for _ in range(steps):
        velocity = momentum * velocity + 1.0
        y -= LR * velocity
    a = Journey(at(y), (LR,) * steps, momentum).scalars()[EFFECTIVE_STEPS]
    assert a == pytest.approx(-y / LR, rel=1e-13)
    r, k = momentum, steps
    assert a == pytest.approx((k - r * (1 - r**k) / (1 - r)) / (1 - r), rel=1e-13)


def test_a_falling_rate_counts_steps_in_units_of_the_first() -> None:
    assert Journey(at(0.0), (0.4, 0.2, 0.1)).scalars()[EFFECTIVE_STEPS] == pytest.approx(1.75, rel=1e-15)


def test_an_update_without_its_steps_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"site a: the update comes without train\.effective_steps"):
        STRATEGIES["fednova"]().aggregate(at(0.0), [update("a", 1.0)])
    with pytest.raises(ValueError, match=r"site a: train\.effective_steps = 0\.0 must be a finite number above 0"):
        STRATEGIES["fednova"]().aggregate(at(0.0), [update("a", 1.0, train__effective_steps=0.0)])
