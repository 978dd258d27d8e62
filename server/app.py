"""Flower's ServerApp: the coordinator of one run, from its settings to what the run leaves."""

from dataclasses import asdict
from pathlib import Path

import torch
from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from protocol.errors import RunError, SettingsError
from protocol.lock import hold
from protocol.settings import Table, resolve, section
from server.identity import enrolment_of
from server.journal import Arrays, Journal, State
from server.result import write_result
from server.rounds import Federation
from server.status import Status
from urwkv import URWKV, Architecture
from urwkv.weights import load_model

app = ServerApp()

MAY_CHANGE = (
    "run.",
    "tracking.",
    "federation.deadline",
    "federation.sites",
    "train.device",
    "train.threads",
    "report.",
    "data.root",
    "overrides",
)
"""Settings that a resumed run may have otherwise than before: they touch no weight beyond rounding."""


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run, or go on with, the federation that the run's settings describe."""
    table = resolve(context.run_config)
    if table["run.engine"] == "deployment" and table["attack.kind"] != "none":
        raise SettingsError(f"attack.kind = {table['attack.kind']!r} is for simulations alone: set it to none")
    run = Path(str(table["run.out"]))
    status = Status(run)
    try:
        journal = Journal(run)
        state = opening_state(table, journal)
        with hold(journal.folder / "lock", f"{run} is being written by another process"):
            tests = Federation(grid, state, journal, status, enrolment_of(table)).run()
            write_result(run, state, tests)
    except Exception as error:
        status.update(phase="failed", error=str(error) or type(error).__name__, waiting=[])
        raise
    status.update(phase="done", waiting=[])


def opening_state(table: Table, journal: Journal) -> State:
    """Where the run starts: at its newest checkpoint when it is resumed and has one, else with fresh weights.

    Raises:
        RunError: the folder already holds a run that is not to be resumed, or one with other settings.
    """
    run = journal.folder.parent
    if not journal.exists():
        return State(settings=table, model=initial_model(table))
    if not table["run.resume"]:
        raise RunError(f"{run} already holds a run; go on with it by --resume, or choose another --out")
    state = journal.read()
    check_same_run(state.settings, table, run)
    state.settings = table
    return state


def check_same_run(before: Table, now: Table, run: Path) -> None:
    """RunError when a setting that shapes the weights is another than when the run began."""
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not key.startswith(MAY_CHANGE):
            raise RunError(
                f"{run} was begun with {key} = {before.get(key)!r}, not {now.get(key)!r};"
                " resume it with its own settings, or choose another --out"
            )


def _started(path: Path, architecture: Architecture) -> URWKV:
    """The network of a file that is to be trained further."""
    try:
        model = load_model(path)
    except (FileNotFoundError, ValueError) as error:
        raise SettingsError(f"model.start = {str(path)!r}: {error}") from error
    for name, found in asdict(model.architecture).items():
        if found != (wanted := getattr(architecture, name)):
            raise SettingsError(
                f"model.start = {str(path)!r} was built with model.{name} = {found!r}, not {wanted!r}: use"
                f" --set model.{name}={found}, or start from another model"
            )
    return model


def initial_model(table: Table) -> Arrays:
    """The network's weights before the first round: those of `model.start`, else drawn from the study's seed alone.

    Raises:
        SettingsError: `model.start` is no model, or one of another architecture.
    """
    if table["model.start"]:
        model = _started(Path(str(table["model.start"])), section(table, "model", Architecture))
        return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(table["seed"]))
        model = URWKV.from_architecture(section(table, "model", Architecture))
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}
