"""MLflow tracking, seen from the run: a process of its own follows the journal, so that training never waits.

`start` begins the process (`server.tracking_process`) and `Tracker.finish` asks it for the rest. Without MLflow
the run goes on; the line at the end says what to do.
"""

import contextlib
import dataclasses
import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from protocol.errors import RunError
from protocol.settings import ROOT, load_scenario, section

OFF = "none"
FINISH = "finish"
ENVIRONMENT = {  # what the user has set in the environment wins, but for the last
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "60",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}
NO_TELEMETRY = {"MLFLOW_DISABLE_TELEMETRY": "true"}  # a hospital's coordinator calls nobody unasked


@dataclass(frozen=True)
class TrackingSettings:
    """Where to track: an MLflow URI, "" for SQLite beside the run's folder, or "none"; and the experiment."""

    uri: str
    experiment: str

    def __post_init__(self) -> None:
        if not self.experiment.strip():
            raise ValueError(f"experiment = {self.experiment!r} must be a name, like fedurwkv")


class Tracker:
    """The tracking process of one run, or nothing when tracking is off. Leaving its `with` block ends it."""

    def __init__(self, run: Path, settings: TrackingSettings) -> None:
        self._run = run
        self._settings = settings
        self.complete = False
        """Whether MLflow has all of the run; known after `finish`."""
        self._process = None if settings.uri == OFF else _spawn(run, settings)

    @property
    def pid(self) -> int | None:
        """The tracking process's id; None when tracking is off."""
        return None if self._process is None else self._process.pid

    def finish(self, timeout: float) -> str:
        """Log what is missing, upload the artifacts, mark the run FINISHED (FAILED without result.json).

        Waits at most `timeout` seconds. Returns one line: where to look, or what was not tracked, why and
        the cure.
        """
        if self._process is None:
            self.complete = True
            return f"MLflow: tracking is off (tracking.uri = {OFF})"
        end = time.monotonic() + timeout
        line, why = _ask_to_finish(self._process, timeout)
        if not line and time.monotonic() < end:  # it was killed on the way: mlflow.json lets another go on
            self._process = _spawn(self._run, self._settings)
            line, why = _ask_to_finish(self._process, end - time.monotonic())
        self.complete = bool(line) and self._process.returncode == 0
        return line or untracked(self._run, why)

    def close(self, timeout: float = 5.0) -> None:
        """End the process within `timeout` seconds; a run that was not finished is marked KILLED."""
        process = self._process
        if process is None or process.stdin is None or process.stdin.closed:
            return
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        try:
            process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start(run: Path, settings: TrackingSettings) -> Tracker:
    """Begin to track the run in the folder `run`, which must hold settings.yaml; its log is tracking.log there."""
    return Tracker(run, settings)


def track(run: Path, uri: str | None = None, timeout: float = 600.0) -> str:
    """Catch up once with the run in the folder `run`: what `fedurwkv track RUN` does.

    `uri` overrides the setting tracking.uri of the run. Returns the same line as `Tracker.finish`.

    Raises:
        RunError: `run` holds no settings.yaml, or MLflow did not get all of it.
    """
    if not (run / "settings.yaml").is_file():
        raise RunError(f"{run} is not the folder of a run: it holds no settings.yaml")
    settings = section(load_scenario(run / "settings.yaml"), "tracking", TrackingSettings)
    if uri is not None:
        settings = dataclasses.replace(settings, uri=uri)
    tracker = start(run, settings)
    line = tracker.finish(timeout)
    if not tracker.complete:
        raise RunError(line)
    return line


def untracked(run: Path, why: str) -> str:
    """The line that says why MLflow does not know all of the run, and the cure."""
    return f"MLflow does not have all of this run: {why}; to catch up: fedurwkv track {shlex.quote(str(run))}"


def _ask_to_finish(process: subprocess.Popen[str], timeout: float) -> tuple[str, str]:
    """The process's own last line or, when there is none, why."""
    try:
        line, _ = process.communicate(FINISH + "\n", timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "", f"MLflow did not answer within {timeout:.0f} s"
    return line.strip(), f"the tracking process ended with code {process.returncode}"


def _spawn(run: Path, settings: TrackingSettings) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    with (run / "tracking.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "server.tracking_process", str(run)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=ENVIRONMENT | os.environ | NO_TELEMETRY | {"PYTHONPATH": path},
            text=True,
            process_group=0,  # Ctrl-C in the terminal is the run's to answer
        )
    assert process.stdin is not None
    process.stdin.write(json.dumps(dataclasses.asdict(settings)) + "\n")
    process.stdin.flush()
    return process
