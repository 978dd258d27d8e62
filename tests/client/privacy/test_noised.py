"""Scores with noise: what one patient can move, what it costs, and what comes out."""

import numpy as np
import pytest
import torch
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant

from client.privacy.accounting import ORDERS, Charge, merged, pld_epsilon, rdp_epsilon
from client.privacy.draws import rows_by_unit
from client.privacy.noised import noised_mean, score_charge, study_charges
from client.privacy.randomness import Randomness


class Fixed(Randomness):
    """Draws the same number for ever."""

    def __init__(self, value: float) -> None:
        super().__init__(0)
        self.value = value

    def normals(self, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
        return torch.full((count,), self.value, dtype=torch.float64, device=device)


UNITS = rows_by_unit(["ann", "bob", "ann", "eve"], "patient")


def test_a_score_is_the_mean_over_patients_and_its_noise_the_share_of_one() -> None:
    """ann's images score 0.2 and 0.6, bob's 0.5, eve's 0.9: (0.4 + 0.5 + 0.9) / 3; a unit of noise adds 0.1."""
    values = np.array([0.2, 0.5, 0.6, 0.9])
    assert noised_mean(values, UNITS, 1.0, 0.3, Fixed(0.0)) == pytest.approx(0.6)
    assert noised_mean(values, UNITS, 1.0, 0.3, Fixed(1.0)) == pytest.approx(0.7)
    assert noised_mean(values, UNITS, 1.0, 0.3, Fixed(-10.0)) == 0.0
    assert noised_mean(values, UNITS, 1.0, 0.3, Fixed(10.0)) == 1.0
    assert noised_mean(values, rows_by_unit("abcd", "example"), 1.0, 0.4, Fixed(1.0)) == pytest.approx(0.55 + 0.1)


def test_a_loss_counts_up_to_its_bound_and_one_that_is_no_number_as_much() -> None:
    values = np.array([5.0, np.nan, 1.0, np.inf])  # ann (2 + 1) / 2, bob 2, eve 2
    assert noised_mean(values, UNITS, 2.0, 0.3, Fixed(0.0)) == pytest.approx(5.5 / 3)
    assert noised_mean(values, UNITS, 2.0, 0.3, Fixed(-1.0)) == pytest.approx((5.5 - 0.6) / 3)


@pytest.mark.parametrize("bound", [1.0, 2.5])
def test_no_patient_moves_a_score_by_more_than_the_bound_over_their_number(bound: float) -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        patients = rng.integers(0, 5, 20).astype(str).tolist()
        units = rows_by_unit(patients, "patient")
        values = rng.uniform(-1, 4, 20)
        score = noised_mean(values, units, bound, 1.0, Fixed(0.0))
        for rows in units:
            gone = values.copy()
            gone[rows] = 0.0
            moved = abs(score - noised_mean(gone, units, bound, 1.0, Fixed(0.0)))
            assert moved <= bound / len(units) + 1e-12


def test_the_noise_has_the_deviation_that_it_is_paid_for() -> None:
    drawn, values = Randomness(1), np.full(40, 0.5)
    units = rows_by_unit([str(row) for row in range(40)], "patient")
    scores = np.array([noised_mean(values, units, 1.0, 4.0, drawn) for _ in range(4000)])
    assert scores.mean() == pytest.approx(0.5, abs=0.01)
    assert scores.std() == pytest.approx(4.0 / 40, rel=0.05)


def test_scores_cost_what_other_libraries_and_mironov_say() -> None:
    """The curve is k alpha / (2 sigma^2); to epsilon by Opacus and by dp-accounting."""
    charge, steps = score_charge(20.0, 26), Charge(1.5, 0.2, 30)
    accountant = RdpAccountant(ORDERS)
    accountant.compose(dp_event.GaussianDpEvent(20.0), 26)
    assert rdp_epsilon([charge], 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-9)
    orders = np.array(ORDERS)
    rdp = 26 * orders / (2 * 20.0**2)
    epsilon = rdp + np.log1p(-1 / orders) - np.log(1e-5 * orders) / (orders - 1)
    assert rdp_epsilon([charge], 1e-5) == pytest.approx(epsilon.min(), rel=1e-9)
    accountant.compose(dp_event.PoissonSampledDpEvent(0.2, dp_event.GaussianDpEvent(1.5)), 30)
    assert rdp_epsilon([charge, steps], 1e-5) == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)
    assert pld_epsilon([charge, steps], 1e-5) < rdp_epsilon([charge, steps], 1e-5)


def test_a_study_asks_before_each_round_after_the_last_and_once_for_the_test() -> None:
    noised = {"val": {"dice": 1.0, "loss": 2.0}, "test": {"dice": 1.0}}
    assert merged(study_charges(noised, 20.0, rounds=12)) == (Charge(20.0, 1.0, 27),)
    assert study_charges({"val": {}, "test": {}}, 0.0, rounds=12) == ()
