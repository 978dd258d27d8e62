"""`fedurwkv coordinator status`: the sites and the newest run of a study, in a few lines."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from protocol.errors import RunError
from protocol.settings import load_scenario
from server.certificates import days_left
from server.journal import read_state
from server.status import read_status
from server.study import Study
from server.study_run import find_run, run_id
from server.superlink import Control

SLOW = 2.0
"""How often the mean of its own earlier rounds a site may take before it is called slow."""

REFUSALS = 5
"""Refusals that are shown."""


def status(study: Study) -> Iterator[str]:
    """The lines to print.

    Raises:
        DeploymentError: no SuperLink answers.
    """
    with Control(study.local_address, study.ca) as control:
        nodes = {node.key.line: node for node in control.nodes()}
        try:
            folder = find_run(study, None)
            state = control.state(run_id(folder)).status
        except RunError:
            folder, state = None, ""
    left = days_left(study.certificate)
    yield f"study {study.folder}, {', '.join(study.hosts)}; certificate valid for {left:.0f} days"
    words = read_status(folder) if folder else {}
    history = _history(folder) if folder else []
    for name, key in study.admitted().items():
        node = nodes.get(key.line)
        connected = "connected" if node and node.online else "not connected"
        yield f"site {name}: {connected}{_doing(name, words, history) if state == 'running' else ''}"
    if folder:
        yield from _run(folder, state, words, history)
    lines = study.refusals.read_text().splitlines() if study.refusals.is_file() else []
    yield from lines[-REFUSALS:]


def _run(folder: Path, state: str, words: dict[str, Any], history: list[dict[str, Any]]) -> Iterator[str]:
    rounds = int(load_scenario(folder / "settings.yaml")["federation.rounds"])
    line = f"run {folder.name}: {state}, {len(history)} of {rounds} rounds"
    scored = [record for record in history if record["global_dice"] is not None]
    if scored:
        line += f", global Dice {scored[-1]['global_dice']:.4f}"
    if state == "running" and history:
        mean = sum(record["seconds"] for record in history) / len(history)
        line += f", about {_clock(mean * (rounds - len(history)))} left"
    yield line
    if words.get("phase") == "failed":
        yield f"failed: {words.get('error')}"
    for name, reason in (history[-1]["failed"] if history else {}).items():
        yield f"left out of round {history[-1]['round']}: {name}: {reason}"


def _doing(name: str, words: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """What a site does in a run: waited for, since when, and whether that is long for it."""
    if name not in words.get("waiting", []):
        return ", has answered" if words.get("waiting") else ""
    waited = time.time() - float(words["began"])
    told = [record["sites"][name]["seconds"] for record in history if name in record["sites"]]
    before = [seconds for seconds in told if seconds is not None]  # none of a round that it was left out of
    usual = sum(before) / len(before) if before else None
    slow = f", slow: {_clock(usual)} is usual" if usual and waited > SLOW * usual else ""
    return f", {words['phase']} of round {words.get('round', 0)} for {_clock(waited)}{slow}"


def _history(folder: Path) -> list[dict[str, Any]]:
    try:
        history: list[dict[str, Any]] = read_state(folder)["history"]
    except RunError:  # not one round is finished
        return []
    return history


def _clock(seconds: float) -> str:
    minutes, left = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {left} s" if minutes else f"{left} s"
