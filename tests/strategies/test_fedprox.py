import pytest

from strategies import STRATEGIES, Strategy
from tests.strategies.quadratics import federate, gradient_steps


def exact_solve(x: float, a: float, b: float, strategy: Strategy) -> float:
    """argmin_y a/2 (y - b)^2 + mu/2 (y - x)^2."""
    return (a * b + strategy.mu * x) / (a + strategy.mu)


def test_exact_local_solves_end_at_the_known_fixed_point() -> None:
    # x = (x/2 + (12 + x)/4) / 2, so x = 12/5
    assert federate(STRATEGIES["fedprox"](mu=1.0), exact_solve, 200)[-1] == pytest.approx(2.4, abs=1e-12)


def test_many_corrected_steps_agree_with_exact_solves() -> None:
    steps = federate(STRATEGIES["fedprox"](mu=1.0), gradient_steps(400), 20)
    assert steps == pytest.approx(federate(STRATEGIES["fedprox"](mu=1.0), exact_solve, 20), abs=1e-12)


def test_mu_zero_is_fedavg_bit_for_bit() -> None:
    plain = federate(STRATEGIES["fedavg"](), gradient_steps(5), 30)
    assert federate(STRATEGIES["fedprox"](mu=0.0), gradient_steps(5), 30) == plain


def test_a_negative_mu_is_an_error() -> None:
    with pytest.raises(ValueError, match="mu = -1 must be a number at least 0"):
        STRATEGIES["fedprox"](mu=-1)
