"""Epsilon against other libraries, closed forms, and itself."""

import math

import dp_accounting
import numpy as np
import pytest
from dp_accounting.rdp import RdpAccountant
from opacus.accountants import PRVAccountant
from scipy.optimize import brentq
from scipy.stats import norm

from client.privacy.accounting import (
    LEAST_DELTA,
    ORDERS,
    TOLERANCE,
    Charge,
    check_delta,
    epsilon_of,
    merged,
    noise_for,
    pld_epsilon,
    rdp_epsilon,
)
from protocol.errors import SettingsError

STUDIES = [
    [Charge(1.0, 0.1, 100)],
    [Charge(0.7, 0.01, 3000)],
    [Charge(5.0, 1.0, 40)],
    [Charge(40.0, 0.3, 20)],
    [Charge(1.0, 0.1, 100), Charge(2.0, 0.05, 400), Charge(8.0, 1.0, 3)],
]


@pytest.mark.parametrize("charges", STUDIES)
def test_rdp_equals_dp_accounting_at_the_same_orders(charges: list[Charge]) -> None:
    accountant = RdpAccountant(list(ORDERS))
    for charge in charges:
        step = dp_accounting.PoissonSampledDpEvent(charge.rate, dp_accounting.GaussianDpEvent(charge.noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, charge.steps))
    assert rdp_epsilon(charges, 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)


@pytest.mark.parametrize("charges", STUDIES)
def test_pld_equals_prv_of_opacus_to_a_millionth_and_lies_within_its_bounds(charges: list[Charge]) -> None:
    """Two programs that share no line of code; PRV's middle is no bound, but it is near what both bound."""
    accountant, error = PRVAccountant(), 1e-3 * min(2.0, rdp_epsilon(charges, 1e-5))
    accountant.history = [(charge.noise, charge.rate, charge.steps) for charge in charges]
    with np.errstate(divide="ignore"):  # log 0 at q = 1, where it means what it says
        losses = accountant._get_dprv(eps_error=error, delta_error=1e-8)
    low, middle, high = losses.compute_epsilon(1e-5, 1e-8, error)
    ours = pld_epsilon(charges, 1e-5)
    assert ours == pytest.approx(middle, rel=1e-6)
    assert low < ours < high < rdp_epsilon(charges, 1e-5)
    assert epsilon_of(charges, 1e-5) == ours


def gaussian(sigma: float, delta: float) -> float:
    """Epsilon of one step of all patients: Balle and Wang 2018, https://arxiv.org/abs/1805.06530, equation 6."""

    def beyond(epsilon: float) -> float:
        tail = math.exp(epsilon + norm.logcdf(-0.5 / sigma - epsilon * sigma))
        return float(norm.cdf(0.5 / sigma - epsilon * sigma) - tail - delta)

    return brentq(beyond, 0.0, 100.0, xtol=1e-13, rtol=1e-14)


@pytest.mark.parametrize("delta", [1e-3, 1e-5, LEAST_DELTA])
@pytest.mark.parametrize("sigma", [0.7, 3.0])
def test_pld_is_above_the_gaussian_mechanism_and_by_little(sigma: float, delta: float) -> None:
    """100 steps of ten times the noise are one step, whether of all patients or of all but for a trillionth."""
    exact = gaussian(sigma, delta)
    for charge in (Charge(sigma, 1.0, 1), Charge(10 * sigma, 1.0, 100), Charge(10 * sigma, 1 - 1e-12, 100)):
        assert exact < pld_epsilon([charge], delta) < exact * (1 + 2e-6)
    assert rdp_epsilon([Charge(sigma, 1.0, 1)], delta) > exact


@pytest.mark.parametrize("delta", [1e-3, 1e-5])
@pytest.mark.parametrize(("sigma", "rate"), [(0.6, 0.02), (1.0, 0.3), (0.5, 0.9)])
def test_pld_is_above_one_step_of_some_patients_whichever_data_set_has_the_patient(
    sigma: float, rate: float, delta: float
) -> None:
    """P = (1 - q) N(0, s^2) + q N(1, s^2) and Q = N(0, s^2): P / Q rises, so each worst set is a half-line."""

    def where(ratio: float) -> float:
        """x at which P / Q is `ratio`, in units of s."""
        return (sigma**2 * math.log((ratio - 1 + rate) / rate) + 0.5) / sigma

    def beyond(epsilon: float) -> float:
        x = where(math.exp(epsilon))
        with_it = (1 - rate) * norm.sf(x) + rate * norm.sf(x - 1 / sigma) - math.exp(epsilon) * norm.sf(x)
        without = 0.0
        if math.exp(-epsilon) > 1 - rate:
            x = where(math.exp(-epsilon))
            mixed = (1 - rate) * norm.cdf(x) + rate * norm.cdf(x - 1 / sigma)
            without = norm.cdf(x) - math.exp(epsilon) * mixed
        return float(max(with_it, without) - delta)

    exact = brentq(beyond, 1e-12, 100.0, xtol=1e-13, rtol=1e-14)
    assert exact < pld_epsilon([Charge(sigma, rate, 1)], delta) < exact * (1 + 1e-5)


def test_where_sums_would_be_rounded_away_rdp_alone_counts() -> None:
    charges, delta = [Charge(2.0, 0.1, 100)], 0.99 * LEAST_DELTA
    assert pld_epsilon(charges, delta) == epsilon_of(charges, delta) == rdp_epsilon(charges, delta)
    assert pld_epsilon(charges, LEAST_DELTA) < rdp_epsilon(charges, LEAST_DELTA)


def test_steps_add_up_in_whatever_order_and_groups_they_come() -> None:
    parts = [Charge(1.0, 0.1, 3), Charge(2.0, 0.1, 5), Charge(1.0, 0.1, 4)]
    assert merged(parts) == (Charge(1.0, 0.1, 7), Charge(2.0, 0.1, 5))
    assert rdp_epsilon(parts, 1e-5) == rdp_epsilon(reversed(parts), 1e-5)
    assert rdp_epsilon(parts[:2], 1e-5) < rdp_epsilon(parts, 1e-5)


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    for epsilon in (rdp_epsilon, pld_epsilon):
        assert epsilon([], 1e-5) == 0
        assert epsilon([Charge(0.0, 0.1, 1)], 1e-5) == math.inf
        assert epsilon([Charge(0.0, 0.1, 0)], 1e-5) == 0


def test_an_epsilon_that_is_no_number_is_not_taken_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opacus.accountants.analysis.rdp.get_privacy_spent", lambda **_: (math.nan, 2))
    assert not rdp_epsilon([Charge(1.0, 0.1, 1)], 1e-5) <= 1e9


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_calibrated_noise_spends_the_budget_and_no_more(accountant: str, epsilon: float) -> None:
    noise = noise_for(epsilon, 1e-5, 0.2, 60, accountant)
    spent = {"rdp": rdp_epsilon, "pld": pld_epsilon}[accountant]
    assert epsilon * (1 - TOLERANCE) <= spent([Charge(noise, 0.2, 60)], 1e-5) <= epsilon
    assert epsilon_of([Charge(noise, 0.2, 60)], 1e-5) <= epsilon < epsilon_of([Charge(noise, 0.2, 75)], 1e-5)


def test_a_budget_beyond_all_reason_is_kept_too() -> None:
    noise = noise_for(1e6, 1e-5, 0.2, 60, "pld")
    assert 1e6 * (1 - TOLERANCE) <= pld_epsilon([Charge(noise, 0.2, 60)], 1e-5) <= 1e6


def test_a_budget_that_no_noise_can_keep_is_an_error() -> None:
    for accountant in ("rdp", "pld"):
        with pytest.raises(SettingsError, match=r"privacy\.epsilon = 1e-12 is too small for 100 steps"):
            noise_for(1e-12, LEAST_DELTA / 2, 1.0, 100, accountant)


def test_delta_must_be_below_one_over_the_patients() -> None:
    check_delta(0.0099, 100)
    for bad in (0.01, 0.5, 0.0):
        with pytest.raises(SettingsError, match=r"below 1 / 100 patients = 0\.01; use --set privacy\.delta=0\.001"):
            check_delta(bad, 100)


@pytest.mark.parametrize("bad", [(-1.0, 0.1, 1), (math.inf, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, -1)])
def test_charges_that_cannot_be_are_errors(bad: tuple) -> None:
    with pytest.raises(ValueError, match="must be"):
        Charge(*bad)
