"""Lower bounds on epsilon: by hand, and below what is claimed exactly when the claim is true."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from client.privacy.accounting import Charge, epsilon_of, noise_for
from client.privacy.canaries import canary_trial
from client.privacy.evidence import membership, one_run_epsilon
from client.privacy.randomness import Randomness

DELTA = 1e-5


def test_the_area_under_the_curve_by_hand() -> None:
    # of six pairs, a member's loss is the smaller in four, and equal in one
    found = membership(np.array([0.1, 0.2]), np.array([0.2, 0.3, 0.15]), DELTA)
    assert found.auc == pytest.approx(4.5 / 6)


def test_losses_that_say_nothing_prove_nothing() -> None:
    rng = np.random.default_rng(0)
    found = membership(rng.random(200), rng.random(200), DELTA)
    assert found.auc == pytest.approx(0.5, abs=0.1)
    assert found.epsilon < 0.3


def test_losses_that_tell_all_prove_as_much_as_so_few_can() -> None:
    found = membership(np.full(200, 0.1), np.full(200, 0.9), DELTA)
    assert found.auc == 1.0
    # 100 hits of 100: the rate is at least 0.025^(1/100); no alarm in 100 likewise
    least = 0.025 ** (1 / 100)
    assert found.epsilon == pytest.approx(math.log((least - DELTA) / (1 - least)))


def test_without_delta_one_run_is_a_binomial_test() -> None:
    epsilon = one_run_epsilon(canaries=100, guesses=100, correct=80, delta=0.0)
    right = math.exp(epsilon) / (1 + math.exp(epsilon))
    assert binom.sf(79, 100, right) == pytest.approx(0.05, rel=1e-6)
    assert one_run_epsilon(100, 100, 50, 0.0) == 0.0
    assert one_run_epsilon(1000, 100, 80, 1e-4) < epsilon


@pytest.mark.parametrize("clipping", ["flat", "automatic"])
@pytest.mark.parametrize(("rate", "steps"), [(1.0, 5), (0.5, 20)])
def test_canaries_are_heard_but_never_above_the_claim(clipping: str, rate: float, steps: int) -> None:
    charge = Charge(noise_for(6.0, DELTA, rate, steps, "rdp"), rate, steps)
    heard = canary_trial([charge], DELTA, Randomness(seed=1), clipping=clipping)
    assert 0.5 < heard.epsilon <= epsilon_of([charge], DELTA)
    assert heard.correct > heard.guesses / 2


def test_canaries_find_noise_that_is_too_small() -> None:
    # steps with a tenth of the noise that is claimed
    claimed = Charge(noise_for(2.0, DELTA, 1.0, 5, "rdp"), 1.0, 5)
    heard = canary_trial([Charge(claimed.noise / 10, 1.0, 5)], DELTA, Randomness(seed=1))
    assert heard.epsilon > 2.0
