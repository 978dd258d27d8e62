"""Small phantom sites and settings for tests that train the real network."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from client.privacy.policy import OPEN
from client.trainer import Trainer
from protocol.settings import Table, resolve
from simulation.settings import check_settings
from simulation.sites import make_sites

SMALL = {
    "data.size": 32,
    "data.images": 10,
    "data.sites": 2,
    "federation.rounds": 2,
    "train.epochs": 1,
    "train.batch": 4,
    "train.threads": 1,
    "tracking.uri": "none",
}


def sets_of(study: Mapping[str, object]) -> list[str]:
    """The words of a command line that make these the settings."""
    return [word for key, value in study.items() for word in ("--set", f"{key}={value}")]


def small(**changed: object) -> Table:
    """A complete table of a tiny study, with differences like `train_lr=0.1`."""
    return resolve(SMALL, {key.replace("_", ".", 1): value for key, value in changed.items()})


def small_sites(folder: Path, table: Table) -> list[Path]:
    """The study's phantom sites below `folder`."""
    return make_sites(check_settings(table), int(table["seed"]), folder / "sites")


def pretend(folder: Path, table: Table, state: Path | None = None) -> Trainer:
    """The trainer of a pretend site that allows everything; its ledger, if it needs one, lies in `state`."""
    return Trainer(folder, table, replace(OPEN, folder=state or folder), state=state, pretend=True)
