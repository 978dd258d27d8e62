from pathlib import Path

import pytest

from protocol.errors import RunError
from protocol.settings import Table
from server.app import initial_model, opening_state
from server.journal import Journal, State
from tests.server.clients import settings


def begun(run: Path, table: Table) -> Journal:
    journal = Journal(run)
    journal.write(State(settings=table, model=initial_model(table), round=3))
    return journal


def test_the_first_weights_follow_from_the_seed_alone() -> None:
    once, again, other = (initial_model(settings(seed=seed)) for seed in (1, 1, 2))
    assert all(once[name].tobytes() == again[name].tobytes() for name in once)
    assert any(once[name].tobytes() != other[name].tobytes() for name in once)


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
