import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import EXACT, path


def test_exact_local_solves_end_at_the_known_fixed_point() -> None:
    # mu = 1: y_i = (a_i b_i + x) / (a_i + 1), so x = (x/2 + (12 + x)/4) / 2 = 12/5
    models = path(STRATEGIES["fedprox"](mu=1.0), 60, EXACT)
    assert models[0] == pytest.approx(1.5, abs=1e-12)
    assert models[-1] == pytest.approx(2.4, abs=1e-12)


def test_two_steps_by_hand() -> None:
    # site 2 from 0: y = 1.2, then 1.2 - .1 (3 (1.2 - 4) + 2 (1.2 - 0)) = 1.8; site 1 stays at 0
    assert path(STRATEGIES["fedprox"](mu=2.0), 1, 2)[0] == pytest.approx(0.9, abs=1e-15)


def test_mu_zero_is_fedavg_bit_for_bit() -> None:
    assert path(STRATEGIES["fedprox"](mu=0.0), 30, 5) == path(STRATEGIES["fedavg"](), 30, 5)


def test_a_negative_mu_is_an_error() -> None:
    with pytest.raises(ValueError, match="mu = -1 must be a number at least 0"):
        STRATEGIES["fedprox"](mu=-1)
