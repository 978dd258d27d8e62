"""`fedurwkv coordinator run`, `resume` and `stop`: a study's runs, from their settings to their end."""

import contextlib
import json
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from protocol.atomic import write_atomic
from protocol.codec import TransferSettings
from protocol.errors import DeploymentError, RunError, SettingsError
from protocol.lock import hold
from protocol.settings import Table, Value, defaults, dump, load_scenario, parse_assignment, resolve, section
from protocol.strategy import make_strategy
from server import tracking
from server.journal import Journal
from server.progress import LOOK_EVERY, watch
from server.settings import FederationSettings
from server.status import read_status
from server.study import Study
from server.summary import short, show
from server.superlink import Control
from server.tracking import TrackingSettings
from urwkv import Architecture

TRACKING_SECONDS = 90.0
"""How long the end of a run waits for MLflow to catch up."""

ASK_EVERY = 5.0
"""Seconds between two questions to the SuperLink how the run stands, should its server app die without a word."""

ENDING_SECONDS = 60.0
"""How long going on with a run waits for the server app of the one that was stopped; Flower ends it in 30 at most."""

OWN = ("run.engine", "run.out", "run.sites", "run.resume")
"""Settings that these commands make themselves."""


def run(study: Study, scenario: Path | None, sets: list[str], console: Console) -> Path:
    """Submit a run and follow it to its end.

    Returns:
        The run's folder.

    Raises:
        SettingsError: a setting is wrong.
        DeploymentError: no SuperLink answers, or no site is enrolled.
        RunError: the run failed, with the server app's own reason; or it was left on Ctrl-C, and goes on.
    """
    differences: Mapping[str, Value] = load_scenario(scenario) if scenario else {}
    table = resolve(differences, dict(parse_assignment(text) for text in sets))
    sites = len(study.admitted())
    if not sites:
        raise DeploymentError(f"no site is enrolled in {study.folder}; fedurwkv coordinator enroll SITE KEY.pub")
    for key in OWN:
        if table[key] != defaults()[key]:
            raise SettingsError(f"{key} = {table[key]!r}: the coordinator sets it itself")
    name = scenario.stem if scenario else "defaults"
    folder = study.runs / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    table["run.out"] = str(folder)
    table["federation.sites"] = table["federation.sites"] or sites
    check(table)
    folder.mkdir(parents=True)
    write_atomic(folder / "settings.yaml", dump(table))
    return _follow(study, folder, table, console)


def resume(study: Study, name: str | None, console: Console) -> Path:
    """Go on with a run, the newest unless `name` names one, from its last finished round, and follow it.

    Raises:
        DeploymentError: no SuperLink answers.
        RunError: there is no such run, it is done or still running, or it failed again.
    """
    folder = find_run(study, name)
    if (folder / "result.json").is_file():
        raise RunError(f"{folder.name} is done; see {folder}")
    if not state_of(study, folder).startswith("finished"):
        if read_status(folder).get("phase") != "failed":
            raise RunError(f"{folder.name} is still running; see: fedurwkv coordinator status {study.folder}")
        stop(study, folder.name)  # it has failed while the SuperLink was away, which would notice a minute later
    _wait_for_end(folder)
    table = resolve(load_scenario(folder / "settings.yaml")) | {"run.resume": True}
    return _follow(study, folder, table, console)


def stop(study: Study, name: str | None) -> Path:
    """Stop a run, the newest unless `name` names one; every finished round is kept."""
    folder = find_run(study, name)
    with Control(study.local_address, study.ca) as control:
        control.stop(run_id(folder))
    return folder


def find_run(study: Study, name: str | None) -> Path:
    """The folder of the run `name`, or of the newest.

    Raises:
        RunError: there is none.
    """
    if name is not None and not (study.runs / name / "settings.yaml").is_file():
        known = ", ".join(sorted(path.parent.name for path in study.runs.glob("*/run.json")))
        raise RunError(f"{study.runs} holds no run {name!r}; it holds: {known or 'none'}")
    if name is not None:
        return study.runs / name
    runs = sorted(study.runs.glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    if not runs:
        raise RunError(f"{study.runs} holds no run yet; fedurwkv coordinator run {study.folder} SCENARIO.yaml")
    return runs[-1].parent


def run_id(folder: Path) -> int:
    """Flower's id of the run in a folder."""
    words: dict[str, Any] = json.loads((folder / "run.json").read_text())
    return int(words["id"])


def state_of(study: Study, folder: Path) -> str:
    """How the SuperLink says that a run stands: "running", "finished:completed" and so on."""
    with Control(study.local_address, study.ca) as control:
        return control.state(run_id(folder)).status


def check(table: Table) -> None:
    """Every setting that the coordinator can judge; sites judge theirs when they are asked.

    Raises:
        SettingsError: a setting is mistyped, out of range, or does not combine with another.
    """
    section(table, "model", Architecture)
    section(table, "federation", FederationSettings)
    section(table, "transfer", TransferSettings)
    section(table, "tracking", TrackingSettings)
    make_strategy(table)


def _wait_for_end(folder: Path) -> None:
    """Wait until the server app of a stopped run has ended: its last words are not those of the run that goes on."""
    checkpoints, until = Journal(folder).folder, time.monotonic() + ENDING_SECONDS
    while True:
        try:
            with hold(checkpoints / "lock", f"{folder.name} was stopped and is still ending"):
                return
        except RunError:
            if time.monotonic() > until:
                raise
        time.sleep(LOOK_EVERY)


def _follow(study: Study, folder: Path, table: Table, console: Console) -> Path:
    """Start the run, print its rounds, and its scores when it is done."""
    (folder / "status.json").unlink(missing_ok=True)
    with hold(folder / "follow.lock", f"{folder} is being followed already"):
        with Control(study.local_address, study.ca) as control:
            write_atomic(folder / "run.json", json.dumps({"id": control.start(table)}))
        console.print(f"run {short(folder)}", highlight=False, markup=False, soft_wrap=True)
        over = _Over(study, folder)
        with tracking.start(folder, section(table, "tracking", TrackingSettings)) as tracker:
            try:
                watch(folder, int(table["federation.rounds"]), console, over)
            except KeyboardInterrupt:
                words = f"{study.folder} {folder.name}"
                raise RunError(
                    f"no longer followed; the run goes on. To stop it: fedurwkv coordinator stop {words};"
                    f" what MLflow lacks then: fedurwkv track {shlex.quote(str(folder))}"
                ) from None
            over.check()
            tracked = tracker.finish(TRACKING_SECONDS)
    show(folder, console, tracked)
    return folder


class _Over:
    """Whether a run is over: its server app says so, or the SuperLink does."""

    def __init__(self, study: Study, folder: Path) -> None:
        self._study = study
        self._folder = folder
        self._asked = time.monotonic()
        self._ended = ""

    def __call__(self, seconds: float) -> bool:
        """After `seconds`: is it over?"""
        time.sleep(seconds)
        if read_status(self._folder).get("phase") in ("done", "failed"):
            return True
        if time.monotonic() - self._asked > ASK_EVERY:
            self._asked = time.monotonic()
            with contextlib.suppress(DeploymentError), self._control() as control:  # it may be restarting
                state = control.state(run_id(self._folder))
                self._ended = f"{state.status} {state.details}".strip() if state.over else ""
        return bool(self._ended)

    def check(self) -> None:
        """RunError unless the server app has said that it is done."""
        status = read_status(self._folder)
        cure = f"; go on with it: fedurwkv coordinator resume {self._study.folder} {self._folder.name}"
        if status.get("phase") == "failed":
            raise RunError(f"{status.get('error')}{cure}")
        if status.get("phase") != "done":
            raise RunError(f"the run ended in phase {status.get('phase', 'starting')!r} ({self._ended}){cure}")

    def _control(self) -> Control:
        return Control(self._study.local_address, self._study.ca)
