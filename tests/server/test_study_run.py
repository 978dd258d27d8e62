import json
import os
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from protocol.errors import DeploymentError, RunError, SettingsError
from protocol.keys import make_key_pair
from protocol.lock import hold
from protocol.settings import Table, load_scenario, resolve
from server import study_run
from server.status import Status
from server.study import Study, make_study
from server.study_run import check, find_run, resume, run, stop
from server.superlink import RunState
from tests.server.study_controls import FakeControl

QUIET = Console(quiet=True)
NO_TRACKING = "tracking.uri=none"


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> type[FakeControl]:
    fresh = type("Control", (FakeControl,), {})
    monkeypatch.setattr(study_run, "Control", fresh)
    monkeypatch.setattr(study_run, "ASK_EVERY", 0.0)
    return fresh


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = make_study(tmp_path / "study", ["a.example"])
    for name in ("mercy", "charity"):
        make_key_pair(study.folder / name, study.folder / f"{name}.pub", name)
        study.admit(name, study.folder / f"{name}.pub")
    return study


def a_run(study: Study, name: str) -> Path:
    folder = study.runs / name
    folder.mkdir(parents=True)
    (folder / "settings.yaml").write_text("tracking: {uri: none}\n")
    (folder / "run.json").write_text('{"id": 7}')
    return folder


def failing(monkeypatch: pytest.MonkeyPatch, control: type[FakeControl], words: dict[str, Any]) -> None:
    """Have a server app say `words` as soon as it is started."""

    def start(self: FakeControl, table: Table) -> int:
        control.started = table
        Status(Path(str(table["run.out"]))).update(**words)
        return 7

    monkeypatch.setattr(control, "start", start)


def test_a_run_is_submitted_with_complete_settings_and_its_failure_is_this_commands(
    study: Study, control: type[FakeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing(monkeypatch, control, {"phase": "failed", "error": "no site has test images"})
    with pytest.raises(
        RunError, match=r"no site has test images; go on with it: fedurwkv coordinator resume .*defaults-"
    ):
        run(study, None, ["federation.rounds=3", NO_TRACKING], QUIET)
    (folder,) = study.runs.iterdir()
    table = resolve(load_scenario(folder / "settings.yaml"))
    assert table == control.started
    assert (table["federation.rounds"], table["federation.sites"]) == (3, 2)
    assert (table["run.out"], table["run.engine"]) == (str(folder), "deployment")
    assert json.loads((folder / "run.json").read_text()) == {"id": 7}


def test_a_run_that_dies_without_a_word_is_found_by_asking(study: Study, control: type[FakeControl]) -> None:
    control.status = RunState("finished:failed", "out of memory")
    with pytest.raises(RunError, match=r"ended in phase 'starting' \(finished:failed out of memory\); go on with it"):
        run(study, None, [NO_TRACKING], QUIET)


def test_a_run_that_is_left_goes_on(
    study: Study, control: type[FakeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(study_run, "watch", interrupted)
    with pytest.raises(
        RunError, match=r"no longer followed; the run goes on\. To stop it: fedurwkv coordinator stop"
    ):
        run(study, None, [NO_TRACKING], QUIET)
    assert control.stopped == 0


@pytest.mark.parametrize(
    ("sets", "says"),
    [
        (["run.engine=local"], r"run\.engine = 'local': the coordinator sets it itself"),
        (["run.out=x"], r"run\.out = 'x': the coordinator sets it itself"),
        (["federation.roundz=3"], r"did you mean 'federation\.rounds'"),
        (["transfer.codec=int7"], r"transfer\.codec = 'int7' is not one of"),
        (["federation.strategy=krum"], "needs the updates of at least 5 sites a round, but of 2 sites"),
    ],
)
def test_wrong_settings_make_no_run(study: Study, control: type[FakeControl], sets: list[str], says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        run(study, None, sets, QUIET)
    assert not study.runs.exists()


def test_a_study_without_sites_runs_nothing(tmp_path: Path, control: type[FakeControl]) -> None:
    with pytest.raises(DeploymentError, match=r"no site is enrolled in .*fedurwkv coordinator enroll"):
        run(make_study(tmp_path / "s", ["a"]), None, [], QUIET)


def test_the_newest_run_is_found_and_any_by_its_name(study: Study) -> None:
    with pytest.raises(RunError, match=r"holds no run yet; fedurwkv coordinator run"):
        find_run(study, None)
    first, second = a_run(study, "first"), a_run(study, "second")
    os.utime(second / "run.json", (1, 1))
    assert find_run(study, None) == first
    assert find_run(study, "second") == second
    with pytest.raises(RunError, match="holds no run 'third'; it holds: first, second"):
        find_run(study, "third")


def test_what_is_done_or_still_running_is_not_resumed(study: Study, control: type[FakeControl]) -> None:
    folder = a_run(study, "first")
    with pytest.raises(RunError, match="first is still running; see: fedurwkv coordinator status"):
        resume(study, None, QUIET)
    (folder / "result.json").touch()
    with pytest.raises(RunError, match="first is done; see"):
        resume(study, None, QUIET)


def test_a_resumed_run_has_its_own_settings_and_says_that_it_is_one(
    study: Study, control: type[FakeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(study, "first")
    settings = resolve({"run.out": str(folder), "federation.rounds": 5, "tracking.uri": "none"})
    (folder / "settings.yaml").write_text(json.dumps(settings))
    control.status = RunState("finished:stopped", "")
    Status(folder).update(phase="done")  # what the run that was stopped said last must not end this one
    with pytest.raises(RunError, match=r"ended in phase 'starting' \(finished:stopped\)"):
        resume(study, "first", QUIET)
    assert control.started == settings | {"run.resume": True}


def test_a_run_that_has_failed_is_resumed_though_the_superlink_has_not_noticed(
    study: Study, control: type[FakeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(study, "first")
    (folder / "settings.yaml").write_text(json.dumps(resolve({"run.out": str(folder), "tracking.uri": "none"})))
    Status(folder).update(phase="failed", error="too few sites")
    monkeypatch.setattr(
        control, "stop", lambda self, run: setattr(control, "status", RunState("finished:stopped", ""))
    )
    with pytest.raises(RunError, match=r"ended in phase 'starting' \(finished:stopped\)"):
        resume(study, "first", QUIET)
    assert control.started["run.resume"] is True


def test_a_run_goes_on_only_once_the_stopped_ones_server_app_has_ended(
    study: Study, control: type[FakeControl], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_run(study, "first")
    (folder / "settings.yaml").write_text(json.dumps(resolve({"run.out": str(folder), "tracking.uri": "none"})))
    (folder / "checkpoint").mkdir()
    control.status = RunState("finished:stopped", "")
    monkeypatch.setattr(study_run, "ENDING_SECONDS", 0.0)
    with (
        hold(folder / "checkpoint" / "lock", "taken"),
        pytest.raises(RunError, match="first was stopped and is still ending"),
    ):
        resume(study, "first", QUIET)
    assert control.started == {}
    with pytest.raises(RunError, match=r"ended in phase 'starting' \(finished:stopped\)"):
        resume(study, "first", QUIET)
    assert control.started["run.resume"] is True


def test_one_run_is_followed_once(study: Study, control: type[FakeControl]) -> None:
    folder = a_run(study, "first")
    control.status = RunState("finished:stopped", "")
    with (
        hold(folder / "follow.lock", "taken"),
        pytest.raises(RunError, match="first is being followed already"),
    ):
        resume(study, None, QUIET)


def test_a_run_is_stopped_by_its_number(study: Study, control: type[FakeControl]) -> None:
    folder = a_run(study, "first")
    assert stop(study, None) == folder
    assert control.stopped == 7


def test_without_a_superlink_nothing_is_stopped(study: Study, control: type[FakeControl]) -> None:
    a_run(study, "first")
    control.serving = False
    with pytest.raises(DeploymentError, match="no SuperLink answers"):
        stop(study, None)


def test_the_defaults_are_sound() -> None:
    check(resolve({}))
