"""The journal: what a run needs to go on after any kill, written after each round, whole or not at all.

    checkpoint/study                  what tells this run from every other
    checkpoint/latest                 the name of the newest folder, written last
    checkpoint/round-0007/state.json  round, history, best round, settings, seconds, digests of the files beside it
    checkpoint/round-0007/*.safetensors   model, best (by pooled validation Dice), strategy

The folder before the newest is kept. MLflow, the report and the command line are readers of the journal.
"""

import hashlib
import json
import secrets
import shutil
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from protocol.atomic import sync_folder, write_atomic
from protocol.errors import RunError
from protocol.settings import Table

SCHEMA = 1

Arrays = dict[str, npt.NDArray[Any]]


@dataclass
class State:
    """Everything about a run that outlives its process.

    Attributes:
        settings: the complete table.
        round: the last finished round; 0 before the first.
        model: the global model after that round.
        strategy: the strategy's server state.
        best: the model of the best round so far; empty before one is scored.
        best_round: its number; 0 before one is scored.
        best_dice: its pooled validation Dice.
        accepted: the last round whose reply counted, by the site's name.
        best_accepted: what `accepted` was after the best round.
        sites: name and images in each split of every site, as in result.json.
        history: one record a round, as in result.json.
        seconds: wall time so far, by what it went to.
        stopped_early: whether patience ran out.
        ended: why no further round can be had, in the words of the sites whose privacy budget is spent; else empty.
        closed: whether the last model has been scored.
    """

    settings: Table
    model: Arrays
    round: int = 0
    strategy: Arrays = field(default_factory=dict)
    best: Arrays = field(default_factory=dict)
    best_round: int = 0
    best_dice: float = 0.0
    accepted: dict[str, int] = field(default_factory=dict)
    best_accepted: dict[str, int] = field(default_factory=dict)
    sites: list[dict[str, Any]] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    stopped_early: bool = False
    ended: str = ""
    closed: bool = False

    def words(self) -> dict[str, Any]:
        """All but the arrays, by field: what state.json holds."""
        return {field.name: getattr(self, field.name) for field in fields(self) if field.name not in _ARRAYS}

    def snapshot(self) -> "State":
        """A state that stays as this one is now. Arrays are shared: a round makes new ones and changes none."""
        words: dict[str, Any] = json.loads(json.dumps(self.words()))
        return State(**words | {key: dict(getattr(self, key)) for key in _ARRAYS})


_ARRAYS = ("model", "strategy", "best")


class Journal:
    """The checkpoints of one run.

    Args:
        run: the run's folder; it is made when missing.
    """

    def __init__(self, run: Path) -> None:
        self.folder = run / "checkpoint"
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, state: State) -> None:
        """Make `state` the newest checkpoint: a temporary folder, fsync, rename, pointer last."""
        name = "closing" if state.closed else f"round-{state.round:04d}"
        previous = self._pointed_at()
        part, final = self.folder / f".{name}.part", self.folder / name
        for leftover in (part, final):  # of a write that was killed before its pointer
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir()
        digests = {}
        for key in _ARRAYS:
            data = save({k: np.asarray(v, order="C") for k, v in getattr(state, key).items()})
            write_atomic(part / f"{key}.safetensors", data)
            digests[key] = hashlib.sha256(data).hexdigest()
        words = {"schema": SCHEMA, **state.words(), "digests": digests}
        write_atomic(part / "state.json", json.dumps(words))
        part.rename(final)
        sync_folder(self.folder)
        write_atomic(self.folder / "latest", name)
        for folder in self.folder.iterdir():
            if folder.is_dir() and folder.name not in (name, previous):
                shutil.rmtree(folder)

    @property
    def study(self) -> str:
        """What tells this run from every other, for sites that remember: drawn at first, before the first round."""
        path = self.folder / "study"
        if not path.is_file():
            write_atomic(path, secrets.token_hex(8))
        return path.read_text()

    def exists(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return holds_checkpoint(self.folder.parent)

    def _pointed_at(self) -> str:
        return (self.folder / "latest").read_text().strip() if self.exists() else ""

    def read(self) -> State:
        """The newest checkpoint.

        Raises:
            RunError: there is none, or it is torn or of another version.
        """
        folder = _newest(self.folder)
        words = _read_words(folder)
        digests = words.pop("digests")
        words.pop("schema")
        words |= {key: _read_arrays(folder / f"{key}.safetensors", digests[key]) for key in _ARRAYS}
        return State(**words)


def holds_checkpoint(run: Path) -> bool:
    """Whether the folder holds a run that has finished a round."""
    return (run / "checkpoint" / "latest").is_file()


def read_state(run: Path) -> dict[str, Any]:
    """The words and numbers of a run's newest checkpoint (state.json), for those who report on it.

    Raises:
        RunError: there is no checkpoint, or it is torn or of another version.
    """
    return _read_words(_newest(run / "checkpoint"))


def _newest(checkpoints: Path) -> Path:
    pointer = checkpoints / "latest"
    if not pointer.is_file():
        raise RunError(f"{checkpoints.parent} holds no checkpoint: not one round was finished there")
    return checkpoints / pointer.read_text().strip()


def _read_words(folder: Path) -> dict[str, Any]:
    try:
        words: dict[str, Any] = json.loads((folder / "state.json").read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"{folder} is torn ({error}){_cure(folder)}") from error
    if words.get("schema") != SCHEMA:
        raise RunError(f"{folder} was written by another version (schema {words.get('schema')}, here {SCHEMA})")
    return words


def _read_arrays(path: Path, digest: str) -> Arrays:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != digest:
            raise RunError(f"{path} is torn: its digest is not the journal's{_cure(path.parent)}")
        return dict(load(data))
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is torn ({error}){_cure(path.parent)}") from error


def _cure(folder: Path) -> str:
    others = sorted(path.name for path in folder.parent.iterdir() if path.is_dir() and path != folder)
    if not others:
        return "; there is no older checkpoint to go back to"
    return f"; go back one round by writing {others[-1]} into {folder.parent / 'latest'}"
