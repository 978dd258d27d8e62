"""MLflow for a comparison: told once at its end, by a process of its own that may fail or be late without harm."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from protocol.settings import ROOT
from server.tracking import ENVIRONMENT, NO_TELEMETRY, OFF, TrackingSettings


def track_comparison(folder: Path, runs: Sequence[Path], settings: TrackingSettings, timeout: float) -> str:
    """Make the comparison in `folder` a run in MLflow, with its numbers and files, and `runs` its children.

    Telling twice doubles nothing. Returns one line: where to look, or why MLflow does not have it, and the cure.
    """
    if settings.uri == OFF:
        return f"MLflow: tracking is off (tracking.uri = {OFF})"
    words = {**asdict(settings), "runs": [str(run) for run in runs]}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    try:
        with (folder / "tracking.log").open("ab") as log:
            told = subprocess.run(
                [sys.executable, "-m", "server.mlflow_comparison", str(folder)],
                input=json.dumps(words),
                stdout=subprocess.PIPE,
                stderr=log,
                env=ENVIRONMENT | os.environ | NO_TELEMETRY | {"PYTHONPATH": path},
                text=True,
                timeout=timeout,
                check=False,
            )
        line, why = told.stdout.strip(), f"the tracking process ended with code {told.returncode}"
    except subprocess.TimeoutExpired:
        line, why = "", f"MLflow did not answer within {timeout:.0f} s"
    return line or untracked(why)


def untracked(why: str) -> str:
    """The line that says why MLflow does not have the comparison, and the cure."""
    return f"MLflow does not have this comparison: {why}; to tell it again: the same command with --resume"
