"""What a budget comes to at a site, and what does not go with privacy."""

from dataclasses import replace

import pytest
import torch

from client.privacy.accounting import Accountant, pld_epsilon, rdp_epsilon
from client.privacy.clipping import factors
from client.privacy.noised import score_charge
from client.privacy.plan import BOUNDS, check_private, make_plan
from client.privacy.settings import PrivacySettings
from protocol.errors import SettingsError
from protocol.settings import resolve, section
from strategies import STRATEGIES
from tests.client.privacy.test_phase import SETTINGS


def test_the_whole_study_costs_the_budget_whatever_the_site_has() -> None:
    for units in (30, 200):
        plan = make_plan(replace(SETTINGS, clip=1.0, batch=20), units, epochs=2, rounds=5)
        assert plan.rate == pytest.approx(20 / units)
        assert plan.steps == {30: 2, 200: 10}[units]
        study = [plan.charge(2)] * 5
        assert 3.99 < rdp_epsilon(study, 1e-5) <= 4.0
        assert rdp_epsilon([*study, plan.charge(2)], 1e-5) > 4.0


@pytest.mark.parametrize("accountant", ["rdp", "pld"])
def test_what_is_paid_for_beside_the_steps_leaves_them_less(accountant: Accountant) -> None:
    settings = replace(SETTINGS, clip=1.0, batch=20, accountant=accountant)
    beside = (score_charge(10.0, 12),)
    alone, plan = (make_plan(settings, 200, epochs=1, rounds=3, beside=extra) for extra in ((), beside))
    assert plan.noise > alone.noise
    bound = rdp_epsilon if accountant == "rdp" else pld_epsilon
    assert 3.98 < bound([*beside, *[plan.charge(1)] * 3], 1e-5) <= 4.0
    with pytest.raises(SettingsError, match=r"privacy\.epsilon = 4 .*for 30 steps: the scores .*by themselves"):
        make_plan(settings, 200, epochs=1, rounds=3, beside=(score_charge(10.0, 97),))


def test_a_site_with_fewer_patients_than_the_batch_takes_all_of_them() -> None:
    plan = make_plan(replace(SETTINGS, batch=64), units=10, epochs=1, rounds=2)
    assert (plan.rate, plan.batch, plan.steps) == (1.0, 10, 1)


def test_delta_is_checked_before_the_first_step() -> None:
    with pytest.raises(SettingsError, match="below 1 / 100 patients"):
        make_plan(replace(SETTINGS, delta=0.01), units=100, epochs=1, rounds=1)


def test_the_table_holds_a_setting_for_every_field() -> None:
    settings = section(resolve({"privacy.epsilon": "4"}), "privacy", PrivacySettings)
    assert settings.asked
    assert not section(resolve(), "privacy", PrivacySettings).asked


@pytest.mark.parametrize("bad", ["batch=1", "clip=0", "views=0", "ema=1", "epsilon=-1", "delta=0", "clipping=flatt"])
def test_settings_that_cannot_be_are_errors(bad: str) -> None:
    key, _, word = bad.partition("=")
    with pytest.raises(SettingsError, match=rf"privacy\.{key} = "):
        section(resolve({f"privacy.{key}": word}), "privacy", PrivacySettings)


def test_what_does_not_go_with_privacy() -> None:
    settings = replace(SETTINGS, clip=1.0)
    check_private(settings, STRATEGIES["scaffold"](), "group")
    with pytest.raises(SettingsError, match=r"--set model\.norm=group"):
        check_private(settings, STRATEGIES["fedavg"](), "batch")
    with pytest.raises(SettingsError, match=r"--set privacy\.ema=0"):
        check_private(replace(settings, ema=0.9), STRATEGIES["scaffold"](), "group")


def test_a_bound_that_float32_cannot_hold_is_refused() -> None:
    """At 5e-43, 343 of float32's smallest steps, a gradient that is scaled to the bound comes out twice as long."""
    gradient = torch.ones(470_000)
    bound = 5e-43
    scaled = gradient * factors(gradient.norm().view(1, 1), bound, "flat", [0])[0]
    assert scaled.double().norm() > 1.9 * bound
    for clip in (bound, 9e-7, 1.1e6):
        with pytest.raises(SettingsError, match=r"privacy\.clip = .* must be from 1e-06 to 1e\+06"):
            check_private(replace(SETTINGS, clip=clip), STRATEGIES["fedavg"](), "group")
    for clip in BOUNDS:
        check_private(replace(SETTINGS, clip=clip), STRATEGIES["fedavg"](), "group")
        scaled = gradient * factors(gradient.norm().view(1, 1), clip, "flat", [0])[0]
        assert scaled.double().norm() <= clip
