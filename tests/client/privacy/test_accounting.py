"""Epsilon against dp-accounting, closed forms, and itself."""

import math

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from scipy.stats import norm

from client.privacy.accounting import (
    ORDERS,
    PRV_ERROR,
    TOLERANCE,
    Charge,
    check_delta,
    epsilon_of,
    merged,
    noise_for,
    prv_epsilon,
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


def second_opinion(accountant: dp_accounting.PrivacyAccountant, charges: list[Charge], delta: float) -> float:
    for charge in charges:
        step = dp_accounting.PoissonSampledDpEvent(charge.rate, dp_accounting.GaussianDpEvent(charge.noise))
        accountant.compose(dp_accounting.SelfComposedDpEvent(step, charge.steps))
    return accountant.get_epsilon(delta)


@pytest.mark.parametrize("charges", STUDIES)
def test_rdp_equals_dp_accounting_at_the_same_orders(charges: list[Charge]) -> None:
    theirs = second_opinion(RdpAccountant(list(ORDERS)), charges, 1e-5)
    assert rdp_epsilon(charges, 1e-5) == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("charges", STUDIES)
def test_prv_lies_on_the_losses_of_dp_accounting_within_its_own_error_bar(charges: list[Charge]) -> None:
    theirs = second_opinion(PLDAccountant(value_discretization_interval=1e-3), charges, 1e-5)
    assert theirs - 2e-3 <= prv_epsilon(charges, 1e-5) <= theirs + 3 * PRV_ERROR
    assert epsilon_of(charges, 1e-5) <= rdp_epsilon(charges, 1e-5)


def test_without_sampling_it_is_the_gaussian_mechanism() -> None:
    # Balle and Wang 2018, https://arxiv.org/abs/1805.06530, equation 6; four steps are one of sigma / 2
    charges, epsilon = [Charge(6.0, 1.0, 4)], 1.2
    s = 6.0 / 2
    delta = norm.cdf(0.5 / s - epsilon * s) - math.exp(epsilon) * norm.cdf(-0.5 / s - epsilon * s)
    assert prv_epsilon(charges, delta) == pytest.approx(epsilon, abs=2 * PRV_ERROR)
    assert rdp_epsilon(charges, delta) > epsilon


def test_steps_add_up_in_whatever_order_and_groups_they_come() -> None:
    parts = [Charge(1.0, 0.1, 3), Charge(2.0, 0.1, 5), Charge(1.0, 0.1, 4)]
    assert merged(parts) == (Charge(1.0, 0.1, 7), Charge(2.0, 0.1, 5))
    assert rdp_epsilon(parts, 1e-5) == rdp_epsilon(reversed(parts), 1e-5)
    assert rdp_epsilon(parts[:2], 1e-5) < rdp_epsilon(parts, 1e-5)


def test_nothing_costs_nothing_and_no_noise_costs_everything() -> None:
    for epsilon in (rdp_epsilon, prv_epsilon):
        assert epsilon([], 1e-5) == 0
        assert epsilon([Charge(0.0, 0.1, 1)], 1e-5) == math.inf
        assert epsilon([Charge(0.0, 0.1, 0)], 1e-5) == 0


def test_an_epsilon_that_is_no_number_is_not_taken_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opacus.accountants.analysis.rdp.get_privacy_spent", lambda **_: (math.nan, 2))
    assert not rdp_epsilon([Charge(1.0, 0.1, 1)], 1e-5) <= 1e9


@pytest.mark.parametrize("accountant", ["rdp", "prv"])
@pytest.mark.parametrize("epsilon", [0.5, 4.0])
def test_calibrated_noise_spends_the_budget_and_no_more(accountant: str, epsilon: float) -> None:
    noise = noise_for(epsilon, 1e-5, 0.2, 60, accountant)
    spent = {"rdp": rdp_epsilon, "prv": prv_epsilon}[accountant]
    assert epsilon * (1 - TOLERANCE) <= spent([Charge(noise, 0.2, 60)], 1e-5) <= epsilon
    assert epsilon_of([Charge(noise, 0.2, 60)], 1e-5) <= epsilon < epsilon_of([Charge(noise, 0.2, 75)], 1e-5)


def test_a_budget_that_no_noise_can_keep_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"privacy\.epsilon = 1e-09 is too small for 100 steps"):
        noise_for(1e-9, 1e-5, 1.0, 100, "rdp")


def test_delta_must_be_below_one_over_the_patients() -> None:
    check_delta(0.0099, 100)
    for bad in (0.01, 0.5, 0.0):
        with pytest.raises(SettingsError, match=r"below 1 / 100 patients = 0\.01; use --set privacy\.delta=0\.001"):
            check_delta(bad, 100)


@pytest.mark.parametrize("bad", [(-1.0, 0.1, 1), (1.0, 0.0, 1), (1.0, 1.1, 1), (1.0, 0.1, -1)])
def test_charges_that_cannot_be_are_errors(bad: tuple) -> None:
    with pytest.raises(ValueError, match="must be"):
        Charge(*bad)
