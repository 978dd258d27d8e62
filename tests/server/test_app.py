from pathlib import Path

import pytest
import torch

from protocol.errors import RunError, SettingsError
from protocol.settings import Table, section
from server.app import initial_model, opening_state
from server.journal import Journal, State
from tests.server.clients import settings
from urwkv import Architecture
from urwkv.weights import save_model


def begun(run: Path, table: Table) -> Journal:
    journal = Journal(run)
    journal.write(State(settings=table, model=initial_model(table), round=3))
    return journal


def test_the_first_weights_follow_from_the_seed_alone() -> None:
    once, again, other = (initial_model(settings(seed=seed)) for seed in (1, 1, 2))
    assert all(once[name].tobytes() == again[name].tobytes() for name in once)
    assert any(once[name].tobytes() != other[name].tobytes() for name in once)


def test_a_run_starts_from_the_model_that_it_is_told_to(tmp_path: Path) -> None:
    own = initial_model(settings(seed=1))
    tensors = {name: torch.from_numpy(array) for name, array in own.items()}
    path = tmp_path / "model.safetensors"
    save_model(path, tensors, section(settings(), "model", Architecture))
    started = initial_model(settings(seed=2, model_start=str(path)))
    assert {name: array.tobytes() for name, array in started.items()} == {
        name: array.tobytes() for name, array in own.items()
    }
    other = "batch" if settings()["model.norm"] == "group" else "group"
    with pytest.raises(SettingsError, match=rf"model\.start = .*was built with model\.norm = .*, not '{other}'"):
        initial_model(settings(model_start=str(path), model_norm=other))
    for bad, said in (("nothing", "no model file"), ("text", "not a safetensors file")):
        (tmp_path / "text").write_text("no model")
        with pytest.raises(SettingsError, match=rf"model\.start = '.*{bad}': .*{said}"):
            initial_model(settings(model_start=str(tmp_path / bad)))


def test_a_folder_that_holds_a_run_is_not_overwritten(tmp_path: Path) -> None:
    journal = begun(tmp_path, settings())
    with pytest.raises(RunError, match="already holds a run; go on with it by --resume"):
        opening_state(settings(), journal)


def test_a_resumed_run_starts_at_its_newest_checkpoint(tmp_path: Path) -> None:
    journal = begun(tmp_path, settings())
    assert opening_state(settings(run_resume=True), journal).round == 3


def test_a_run_resumed_before_its_first_checkpoint_starts_anew(tmp_path: Path) -> None:
    assert opening_state(settings(run_resume=True), Journal(tmp_path)).round == 0


def test_a_run_goes_on_with_its_own_settings_or_not_at_all(tmp_path: Path) -> None:
    journal = begun(tmp_path, settings(train_lr=0.1))
    with pytest.raises(RunError, match=r"was begun with train\.lr = 0\.1, not 0\.2"):
        opening_state(settings(run_resume=True, train_lr=0.2), journal)
    elsewhere = settings(run_resume=True, train_lr=0.1, tracking_uri="none", federation_deadline=9.0)
    assert opening_state(elsewhere, journal).settings["federation.deadline"] == 9.0
