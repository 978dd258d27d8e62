"""Studies under differential privacy, over the real server, the real trainers and their ledgers."""

import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dp_accounting import dp_event
from dp_accounting.rdp import RdpAccountant
from rich.console import Console

from client.hospital import write_template
from client.privacy import phase, policy
from client.privacy.accounting import ORDERS, Charge
from client.privacy.ledger import Entry, Ledger, Limit, Limits, Request
from client.privacy.phase import Walked, private_phase
from client.privacy.plan import Plan
from client.privacy.policy import OPEN, read_policy
from protocol.errors import RoundError, SettingsError
from protocol.settings import Table, dump
from server.app import initial_model
from server.journal import read_state
from simulation.report import write_report
from simulation.settings import check_settings
from simulation.simulate import simulate
from strategies import STRATEGIES
from tests.simulation.studies import killed_in, model, run, tiny, weights

Sites = Callable[[Table], list[Path]]

PRIVATE = {"privacy_epsilon": 4.0, "privacy_batch": 3, "privacy_accountant": "rdp"}
COMPARING = ("median", "trimmed_mean", "geometric_median", "norm_bounding", "krum", "multikrum")
REFUSED = {"qfedavg": "losses that no noise covers", "feddg_ga": "losses that no noise covers"}
REFUSED |= {"silobn": "batch statistics"}


def private(strategy: str = "fedavg", **changed: object) -> Table:
    sites = {} if strategy in COMPARING else {"data_sites": 2}
    return tiny(strategy, **{**PRIVATE, **sites, **changed})


def ledgers(out: Path) -> dict[str, list[Entry]]:
    """The ledger of each site of a simulated study, by the site's name."""
    return {folder.parent.name: Ledger(folder).entries() for folder in sorted(out.glob("state/*/privacy"))}


def result(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "result.json").read_text()))


@pytest.mark.parametrize("name", [name for name in STRATEGIES if name not in REFUSED])
def test_every_compatible_strategy_spends_its_budget_and_no_more(name: str, tmp_path: Path, sites: Sites) -> None:
    table = private(name)
    check_settings({**table, "federation.sites": 0})
    out = run(tmp_path / "run", table, sites(table))
    records = result(out)["rounds"]
    assert [record["failed"] for record in records] == [{}, {}]
    assert all(np.isfinite(array).all() for array in model(out).values())
    factor = 2 if name == "ditto" else 1
    for site, entries in ledgers(out).items():
        told = [record["sites"][site]["epsilon"] for record in records]
        assert told == [entry.epsilon for entry in entries]
        assert 0 < told[0] < told[1] <= 4.0
        assert told[1] > 0.99 * 4.0  # one more round would not fit
        steps = round(1 / entries[0].charge.rate) * int(table["train.epochs"]) * factor
        assert [entry.charge.steps for entry in entries] == [steps, steps]


@pytest.mark.parametrize("name", REFUSED)
def test_an_incompatible_strategy_is_an_error_before_anything_runs(name: str) -> None:
    with pytest.raises(SettingsError, match=f"privacy.epsilon = 4.0 does not go with {name}.*{REFUSED[name]}"):
        check_settings(private(name))


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"model_norm": "batch"}, r"model\.norm = 'batch' does not go with privacy.*--set model\.norm=group"),
        ({"privacy_clip": -1.0}, r"privacy\.clip = -1\.0 must be above 0"),
        ({"privacy_epsilon": 0.0, "privacy_batch": 1}, r"privacy\.batch = 1 must be at least 2"),
        ({"privacy_unit": "image"}, r"privacy\.unit"),
        (
            {"federation_strategy": "scaffold", "train_optimizer": "sgd", "privacy_ema": 0.9},
            r"privacy\.ema = 0\.9 does not go with",
        ),
    ],
)
def test_settings_of_privacy_are_checked_before_anything_is_made(changed: dict[str, object], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        check_settings(private(**changed))


def test_a_delta_that_gives_a_patient_away_is_refused_before_the_first_round(tmp_path: Path, sites: Sites) -> None:
    table = private(privacy_delta=0.5)
    with pytest.raises(RoundError, match=r"privacy\.delta = 0\.5 must be above 0 and below 1 / \d patients"):
        run(tmp_path / "run", table, sites(table))
    assert not list(tmp_path.glob("run/state/*"))


def test_epsilon_is_dp_accountings_of_the_same_steps(tmp_path: Path, sites: Sites) -> None:
    table = private()
    out = run(tmp_path / "run", table, sites(table))
    for site, entries in ledgers(out).items():
        accountant = RdpAccountant(ORDERS)
        for record, entry in zip(result(out)["rounds"], entries, strict=True):
            step = dp_event.PoissonSampledDpEvent(entry.charge.rate, dp_event.GaussianDpEvent(entry.charge.noise))
            accountant.compose(step, entry.charge.steps)
            expected = accountant.get_epsilon(float(table["privacy.delta"]))
            assert record["sites"][site]["epsilon"] == pytest.approx(expected, rel=1e-6)


def test_the_same_seed_gives_the_same_weights_and_noise_is_in_them(tmp_path: Path, sites: Sites) -> None:
    table = private("ditto", train_augment=True)
    once, again = (run(tmp_path / name, table, sites(table)) for name in ("once", "again"))
    assert weights(once) == weights(again)
    other = run(tmp_path / "other", private("ditto", privacy_epsilon=1.0), sites(table))
    assert weights(other) != weights(once)


@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "fedrep"])
def test_without_noise_and_bound_a_private_study_is_a_plain_one(
    name: str, tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of a site's images in every step, on either side: rounding apart, the same gradients."""
    sgd = {"train_optimizer": "sgd", "train_lr": 0.1, "train_batch": 1000, "train_augment": False}
    epochs = {"train_epochs": 2, "data_sites": 2}
    plain = tiny(name, **sgd, **epochs)
    noiseless = private(name, **sgd, **epochs, privacy_batch=1000, privacy_unit="example")

    def without(passes: Any, images: Any, units: Any, plan: Plan, **words: Any) -> Walked:
        assert (plan.rate, plan.steps) == (1.0, 1)
        bare = replace(plan, noise=0.0, settings=replace(plan.settings, clip=float("inf")))
        return private_phase(passes, images, units, bare, **words)

    monkeypatch.setattr(phase, "private_phase", without)
    x, y = (model(run(tmp_path / key, t, sites(t))) for key, t in (("plain", plain), ("private", noiseless)))
    start = initial_model(plain)
    assert max(float(np.abs(x[key] - start[key]).max()) for key in x) > 1e-2
    for key in x:
        np.testing.assert_allclose(y[key], x[key], rtol=0, atol=1e-5, err_msg=key)


@pytest.mark.parametrize("name", ["fedavg", "scaffold"])
@pytest.mark.parametrize("written", [True, False])
def test_a_run_that_is_killed_and_resumed_pays_once_and_ends_with_the_same_weights(
    name: str, written: bool, tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as round 2 was written, or was about to be, while the sites compute round 3."""
    table = private(name, federation_rounds=3)
    whole = run(tmp_path / "whole", table, sites(table))
    with killed_in(2, monkeypatch, written=written):
        run(tmp_path / "killed", table, sites(table))
    assert read_state(tmp_path / "killed")["round"] == (2 if written else 1)
    assert [len(entries) for entries in ledgers(tmp_path / "killed").values()] == [3, 3]
    again = run(tmp_path / "killed", table, sites(table), resume=True)
    assert weights(again) == weights(whole)
    assert [len(entries) for entries in ledgers(again).values()] == [3, 3]
    assert result(again)["rounds"][2]["sites"].keys() == result(whole)["rounds"][2]["sites"].keys()


def spend_before(out: Path, monkeypatch: pytest.MonkeyPatch, folders: list[Path], charge: Charge) -> None:
    """Hospitals that grant epsilon 4 for all studies, and have spent `charge` of it on another one before."""
    demands = replace(OPEN.privacy, epsilon_study=4.0, epsilon_all=4.0, delta=1e-5)
    monkeypatch.setattr(policy, "OPEN", replace(OPEN, privacy=demands))
    for folder in folders:
        ledger = Ledger(out / "state" / folder.name / "privacy")
        ledger.open()
        wide = Limit(1e9, 1e-5, "")
        ledger.spend(Request("another study", "run", 1, ""), charge, "patient", 5, Limits((wide,), wide))


def test_a_study_lives_on_what_the_template_of_a_site_lets_out(
    tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train loss and seconds stay at the sites; a model is chosen and tested all the same, and there is a report."""
    template = read_policy(write_template(tmp_path / "site").parent)
    monkeypatch.setattr(policy, "OPEN", replace(OPEN, allow=template.allow))
    table = private()
    final = result(out := run(tmp_path / "run", table, sites(table)))
    told = [site for record in final["rounds"] for site in record["sites"].values()]
    assert all((site["loss"], site["seconds"]) == (None, None) and site["epsilon"] > 0 for site in told)
    assert all(site["dice"] == round(site["dice"], 3) for site in told)
    assert [record["train_loss"] for record in final["rounds"]] == [None, None]
    assert final["final"]["best_round"] in (1, 2)
    (out / "settings.yaml").write_text(dump(table))
    write_report(out)
    assert (out / "report.html").is_file()


LITTLE, MUCH = Charge(5.0, 0.5, 1), Charge(0.5, 0.5, 4)


def test_a_run_whose_sites_have_no_budget_left_ends_and_is_kept(
    tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The noise of three rounds makes epsilon 4 together; after the other study two are left."""
    table = private(federation_rounds=3, privacy_accountant="pld")
    folders = sites(table)
    spend_before(tmp_path / "run", monkeypatch, folders, LITTLE)
    with caplog.at_level(logging.WARNING):
        out = run(tmp_path / "run", table, folders)
    names = [folder.name for folder in folders]
    final = result(out)
    assert [record["round"] for record in final["rounds"]] == [1, 2]
    assert all(record["global_dice"] is not None for record in final["rounds"])
    last = final["rounds"][-1]
    assert list(last["failed"]) == names
    for name in names:
        assert "round 3: round 3 of study" in last["failed"][name]
        assert "beyond privacy.epsilon_all of site.yaml = 4" in last["failed"][name]
        assert f"{name} refuses round 3: round 3 of study" in caplog.text
    assert "the run ends with round 2: in round 3 the privacy budget of " in caplog.text
    assert final["final"]["global_dice"] is not None
    (out / "result.json").unlink()
    again = run(out, table, folders, resume=True)  # it is over: no further round is asked for
    assert result(again)["rounds"] == final["rounds"]
    assert [len(entries) for entries in ledgers(again).values()] == [3, 3]


def test_a_site_without_budget_is_left_out_and_the_others_go_on(
    tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = private(federation_rounds=3, privacy_accountant="pld")
    folders = sites(table)
    spend_before(tmp_path / "run", monkeypatch, folders[:1], LITTLE)
    records = result(run(tmp_path / "run", table, folders))["rounds"]
    assert [list(record["failed"]) for record in records] == [[], [], [folders[0].name]]


def test_the_command_trains_privately_and_its_report_says_what_that_cost(tmp_path: Path) -> None:
    sets = [f"{key}={value}" for key, value in private().items() if value != "" and not key.startswith("run.")]
    simulate(None, "local", [*sets, "federation.sites=0"], tmp_path / "run", False, Console(quiet=True))
    assert "epsilon spent" in (tmp_path / "run" / "report.html").read_text()


def test_a_pre_trained_model_is_trained_further_privately_a_part_of_it_alone(tmp_path: Path, sites: Sites) -> None:
    """The plain study's model is no stranger to the guard, and what is not to learn stays as it was."""
    folders = sites(private())
    plain = run(tmp_path / "plain", tiny("fedavg", data_sites=2, train_lr=5e-3, train_epochs=4), folders)
    start = str(plain / "model.safetensors")
    out = run(tmp_path / "run", private(model_start=start, privacy_trainable="head_and_norms"), folders)
    before, after = model(plain, "model.safetensors"), model(out)
    moved = {name for name in before if (before[name] != after[name]).any()}
    assert "head.weight" in moved
    assert "up.0.steps.1.weight" not in moved


def test_a_first_round_beyond_the_budget_is_an_error(
    tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = sites(private())
    spend_before(tmp_path / "run", monkeypatch, folders, MUCH)
    with pytest.raises(RoundError, match=r"round 1 has 0 valid replies.*epsilon_all of site\.yaml = 4"):
        run(tmp_path / "run", private(), folders)
