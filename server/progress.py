"""What a person sees while a run goes on: one line a round, and on a terminal a bar below them.

A reader of the journal and the status file, so it shows the same for every engine.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from protocol.errors import RunError
from server.journal import read_state
from server.status import read_status

LOOK_EVERY = 0.2
"""Seconds between two looks at the run's folder."""

PHASES = {"joining": "sites join", "train": "training", "evaluate": "evaluating"}

HEADER = f"{'round':>5}  {'global Dice':>11}  {'worst site':>10}  {'train loss':>10}  {'seconds':>7}"


def watch(run: Path, rounds: int, console: Console, is_over: Callable[[float], bool]) -> None:
    """Print each round of the run in `run` once its model has been scored, until `is_over`, which waits, says so."""
    printed, refused = len(_scored(run)), 0
    if printed:
        console.print(f"going on after round {printed}")
    console.print(HEADER, style="bold", highlight=False)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("starting", total=rounds, completed=printed)
        over = False
        while not over:
            over = is_over(LOOK_EVERY)
            status = read_status(run)
            for reason in status.get("refused", [])[refused:]:
                console.print(f"refused {reason}", highlight=False, markup=False, soft_wrap=True)
                refused += 1
            for record in _scored(run)[printed:]:
                console.print(line(record), highlight=False, markup=False, soft_wrap=True)
                printed += 1
            bar.update(task, completed=printed, description=_doing(status))


def line(record: dict[str, Any]) -> str:
    """One round as a line under `HEADER`; sites that were left out follow with their reasons."""
    words = (
        f"{record['round']:>5}  {record['global_dice']:>11.4f}  {record['worst_site_dice']:>10.4f}"
        f"  {_loss(record['train_loss']):>10}  {record['seconds']:>7.1f}"
    )
    for name, reason in record["failed"].items():
        words += f"\n       left out: {name}: {reason}"
    return words


def _loss(value: float | None) -> str:
    """A dash where no site tells it."""
    return "-" if value is None else f"{value:.4f}"


def _scored(run: Path) -> list[dict[str, Any]]:
    try:
        history: list[dict[str, Any]] = read_state(run)["history"]
    except RunError:  # nothing journalled yet
        return []
    return [record for record in history if record["global_dice"] is not None]


def _doing(status: dict[str, Any]) -> str:
    phase = PHASES.get(status.get("phase", ""), status.get("phase", "starting"))
    waiting = status.get("waiting") or []
    names = ", ".join(waiting[:3]) + (" ..." if len(waiting) > 3 else "")
    return f"{phase}: {names}" if names else phase
