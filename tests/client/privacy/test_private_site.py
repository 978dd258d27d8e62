"""A study at a site, from the policy to the last round that the budget allows."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.privacy.accounting import rdp_epsilon
from client.privacy.chain import LINES
from client.privacy.ledger import Ledger
from client.privacy.policy import OPEN, Policy, read_policy
from client.privacy.private_site import PrivateSite
from protocol.errors import LedgerError, PolicyError, SettingsError
from protocol.settings import Table, resolve
from strategies import STRATEGIES
from tests.client.privacy.test_phase import network, phase, state
from tests.client.privacy.test_policy import YAML

PATIENTS = [str(row // 2) for row in range(100)]  # 50 patients of two images


def table(**changed: object) -> Table:
    small = {"privacy.epsilon": 2, "privacy.accountant": "rdp", "privacy.batch": 25, "federation.rounds": 3}
    return resolve(small, {key.replace("_", ".", 1): str(value) for key, value in changed.items()})


def real(folder: Path) -> Policy:
    (folder / "site.yaml").write_text(YAML)
    return read_policy(folder)


def site(policy: Policy, settings: Table, name: str | None = None) -> PrivateSite:
    return PrivateSite(policy, settings, STRATEGIES["fedavg"](), PATIENTS, epochs=2, name=name)


def test_a_study_runs_to_its_budget_and_no_further(tmp_path: Path) -> None:
    Ledger(tmp_path / "privacy").open()
    study = site(real(tmp_path), table())
    assert (len(study.units), study.plan.rate, study.plan.steps) == (50, 0.5, 2)
    spent = [study.pay("breast", "run", number, "x").epsilon for number in (1, 2, 3)]
    assert spent == sorted(spent)
    assert 1.99 < spent[-1] <= 2
    with pytest.raises(PolicyError, match="round 4 of study 'breast' is refused"):
        study.pay("breast", "run", 4, "x")


def test_the_same_patients_under_other_names_meet_the_limit_of_all(tmp_path: Path) -> None:
    Ledger(tmp_path / "privacy").open()
    policy = real(tmp_path)
    five = rdp_epsilon([site(policy, table()).plan.charge(2)] * 5, 1e-5) * 1.0001
    policy = replace(policy, privacy=replace(policy.privacy, epsilon_all=five, epsilon_study=2.0))
    study = site(policy, table())
    for name in ("a", "b"):
        for number in (1, 2):
            study.pay(name, "run", number, "x")
    study.pay("c", "run", 1, "x")
    with pytest.raises(PolicyError, match=r"all studies.*privacy\.epsilon_all of site\.yaml = .*, left 0\."):
        study.pay("d", "run", 1, "x")


def test_a_real_site_needs_policy_and_ledger_before_anything_is_computed(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no ledger"):
        site(real(tmp_path), table())
    Ledger(tmp_path / "privacy").open()
    site(real(tmp_path), table())
    with pytest.raises(PolicyError, match="allows 4 a study"):
        site(real(tmp_path), table(privacy_epsilon=5))
    with pytest.raises(SettingsError, match=r"--set model\.norm=group"):
        site(real(tmp_path), table(model_norm="batch"))
    (tmp_path / "privacy" / LINES).write_text("")
    with pytest.raises(LedgerError, match="has 0 lines where 1 were written"):
        site(real(tmp_path), table())


def test_a_round_asked_for_again_costs_again_at_a_real_site(tmp_path: Path) -> None:
    Ledger(tmp_path / "privacy").open()
    study = site(real(tmp_path), table())
    assert study.pay("breast", "run", 1, "x").epsilon < study.pay("breast", "run", 1, "x").epsilon


def test_payments_for_images_are_no_bound_for_patients(tmp_path: Path) -> None:
    """A patient of two images may have lost twice what an image did; the ledger does not know how many there are."""
    Ledger(tmp_path / "privacy").open()
    of_patients = real(tmp_path)
    of_images = replace(of_patients, privacy=replace(of_patients.privacy, unit="example"))
    warm = site(of_patients, table())
    warm.pay("breast", "run", 1, "x")
    other = site(of_images, table(privacy_unit="example"))
    other.pay("breast", "run", 1, "x")
    site(of_images, table()).pay("lung", "run", 1, "x")
    for refused in (lambda: site(of_patients, table()), lambda: warm.pay("breast", "run", 2, "x")):
        with pytest.raises(PolicyError, match=r"1 of 3 payments in the ledger in .* were for single images"):
            refused()


def test_a_pretend_site_opens_its_ledger_and_repeats_a_round_for_nothing(tmp_path: Path) -> None:
    study = site(replace(OPEN, folder=tmp_path), table(), name="site1")
    assert study.pay("s", "run", 1, "x") == study.pay("s", "run", 1, "x")
    assert len(Ledger(tmp_path / "privacy").entries()) == 1
    study.pay("s", "run", 1, "y")  # from another model it is another release
    assert len(Ledger(tmp_path / "privacy").entries()) == 2
    models = [network() for _ in range(3)]
    for model, number in zip(models, (1, 1, 2), strict=True):
        phase(model, replace(study.plan, units=8, noise=0.5), randomness=study.randomness(number))
    first, again, other = (state(model)["head.bias"].item() for model in models)
    assert first == again != other


def test_without_privacy_there_is_no_plan_and_no_ledger(tmp_path: Path) -> None:
    study = site(replace(OPEN, folder=tmp_path), table(privacy_epsilon=0), name="site1")
    assert not hasattr(study, "plan")
    assert not (tmp_path / "privacy").exists()
