"""Tiny studies over the real server, the real trainers and the local engine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from protocol.settings import Table
from server.journal import Journal, State
from server.progress import LOOK_EVERY
from simulation.engines import run_local, run_ray
from tests.client.phantoms import small

TINY = {"data_size": 16, "data_images": 8, "data_sites": 3, "train_batch": 3}
"""Sites of a few pictures of 16 x 16 pixels; with these a round takes parts of a second."""

NEEDS: dict[str, dict[str, object]] = {
    "fednova": {"train_optimizer": "sgd", "train_lr": 0.05},
    "scaffold": {"train_optimizer": "sgd", "train_lr": 0.05},
    "qfedavg": {"train_optimizer": "sgd", "train_lr": 0.05},
    "silobn": {"model_norm": "batch", "data_size": 32},
    "fedrep": {"train_epochs": 2},
    "krum": {"data_sites": 5},
    "multikrum": {"data_sites": 5},
}
"""What a strategy needs of the settings."""


def tiny(strategy: str, **changed: object) -> Table:
    """A complete table of a tiny study with that strategy."""
    return small(**{**TINY, "federation_strategy": strategy, **NEEDS.get(strategy, {}), **changed})


def run(
    out: Path, table: Table, sites: list[Path], engine: Callable[..., None] = run_local, *, resume: bool = False
) -> Path:
    """Run a study over site folders into the folder `out`; `out`."""
    out.mkdir(exist_ok=True)
    where = {
        "run.engine": "ray" if engine is run_ray else "local",
        "run.out": str(out),
        "run.sites": str(sites[0].parent),
        "run.resume": resume,
        "federation.sites": len(sites),
    }
    engine({**table, **where}, len(sites), _wait)
    return out


def _wait(is_over: Callable[[float], bool]) -> None:
    while not is_over(LOOK_EVERY):
        pass


class Killed(Exception):
    """Stands for the end of the server and of all sites."""


@contextmanager
def killed_in(number: int, monkeypatch: pytest.MonkeyPatch, *, written: bool) -> Iterator[None]:
    """Inside the `with`, a study is killed as round `number` was written, or was about to be."""
    write = Journal.write

    def dying(journal: Journal, state: State) -> None:
        if state.round != number or written:
            write(journal, state)
        if state.round == number:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", dying)
        with pytest.raises(Killed):
            yield


def weights(out: Path) -> dict[str, bytes]:
    """The bits of what a study leaves: the last and the best model, and the sites' own."""
    files = [out / "last.safetensors", out / "model.safetensors", *sorted(out.glob("state/*/personal.safetensors"))]
    return {
        f"{path.relative_to(out)}/{name}": array.tobytes()
        for path in files
        for name, array in load_file(path).items()
    }


def model(out: Path, file: str = "last.safetensors") -> dict[str, np.ndarray]:
    """The tensors of one of a study's files."""
    return dict(load_file(out / file))
