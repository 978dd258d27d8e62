"""The trainer of one hospital: holds its data, its device and its network, and answers the server's tasks.

Whoever brings the tasks, a courier in the same process or a service on a socket, calls `Trainer.answer`.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from client.data import Images, load_split
from client.device import PlaceSettings, find_place
from client.evaluation import evaluate
from client.packed import load_packed, read_packed, schema_of
from client.sender import Sender
from client.site import read_site
from client.training import Span, TrainSettings, train
from protocol.codec import TransferSettings
from protocol.errors import RoundError, SettingsError
from protocol.messages import EVALUATE, TRAIN, Reply, Task
from protocol.settings import Table, require, section
from protocol.splits import SPLITS
from protocol.strategy import make_strategy
from urwkv import URWKV, Architecture


@dataclass(frozen=True)
class SiteData:
    """The `data.*` settings that a site reads: image side in pixels, and its shares for validation and test."""

    size: int
    val: float
    test: float

    def __post_init__(self) -> None:
        require(self.size >= 16, "size", self.size, "at least 16 pixels")
        require(0 < self.val < 1, "val", self.val, "between 0 and 1")
        require(0 < self.test < 1 - self.val, "test", self.test, f"above 0 and below 1 - data.val = {1 - self.val:g}")


SERVED = frozenset(
    [
        "fedavg",
        "fedavgm",
        "fedprox",
        "fedadam",
        "fedyogi",
        "fedadagrad",
        "median",
        "trimmed_mean",
        "krum",
        "multikrum",
        "geometric_median",
        "norm_bounding",
    ]
)
"""The strategies whose site half this trainer runs whole; the others run in `strategies.testbed` only."""


class Trainer:
    """One site's trainer; keeps data and network from round to round, and one set of settings.

    Args:
        folder: the site's folder (see `client.site`).
        settings: the run's complete table.
        index: the site's number in a simulation, which spreads sites over GPUs.
        name: the site's name in the study; empty: the folder's.

    Raises:
        DataError: the folder is not a site that can be trained on.
        SettingsError: the settings are impossible here.
    """

    def __init__(self, folder: Path, settings: Table, index: int = 0, name: str = "") -> None:
        self.settings = settings
        self.seed = int(settings["seed"])
        self.place = find_place(section(settings, "train", PlaceSettings), index)
        self.data = section(settings, "data", SiteData)
        self.training = section(settings, "train", TrainSettings)
        self.architecture = section(settings, "model", Architecture)
        self.strategy = make_strategy(settings)
        if (wanted := settings["federation.strategy"]) not in SERVED:
            raise SettingsError(
                f"federation.strategy = {wanted!r}: sites cannot train it yet, only strategies.testbed can;"
                f" choose one of: {', '.join(sorted(SERVED))}"
            )
        self.site = read_site(folder, seed=self.seed, val=self.data.val, test=self.data.test, name=name)
        model = URWKV.from_architecture(self.architecture).to(self.place.device)
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schema = schema_of(self.model)
        self._sender = Sender(section(settings, "transfer", TransferSettings).codec, self.schema)
        self._splits: dict[str, Images] = {}
        self._seconds: dict[str, float] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """Give up what is being computed, within one step, and every later task."""
        self._stop.set()

    def answer(self, task: Task) -> Reply:
        """Do one task.

        A training task first evaluates the model as it came on the site's val split, then trains it, so one
        exchange a round both scores the last global model and makes the next.

        Raises:
            RoundError: the model's schema is not this network's, or training failed.
        """
        self._seconds = {}
        scalars: dict[str, float] = {}
        model = b""
        if task.kind in (TRAIN, EVALUATE):
            with self._clock("load"):
                self._accept(task)
            with self._clock("evaluate"):
                scalars |= self._evaluate(task.split)
        if task.kind == TRAIN:
            with self._clock("train"):
                scalars |= self._train(task.round)
            with self._clock("pack"):
                model = read_packed(self.model, self.schema)
                model = self._sender.encode(task.round, task.round - 1, task.model, model)
        if not task.model:
            scalars |= {f"{split}.images": float(len(self.site.split(split))) for split in SPLITS}
        scalars |= {f"seconds.{phase}": seconds for phase, seconds in self._seconds.items()}
        return Reply(self.site.name, task.round, self.schema.hash if model else "", model, scalars)

    def _accept(self, task: Task) -> None:
        if task.schema != self.schema.hash:
            raise RoundError(
                "the server's model has another schema than this site's network: code or settings differ"
            )
        load_packed(self.model, self.schema, task.model)

    def _evaluate(self, split: str) -> dict[str, float]:
        images = self._images(split)
        classes = self.architecture.num_classes
        scores = evaluate(self.model, images, classes, self.place, surfaces=split == "test")
        return {f"{split}.{name}": value for name, value in scores.items()}

    def _train(self, round_number: int) -> dict[str, float]:
        images = self._images("train")
        rounds = int(self.settings["federation.rounds"])
        span = Span(round_number, rounds, self.seed, self.site.name)
        stopped = self._stop.is_set
        loss, steps = train(self.model, images, self.training, self.strategy, span, self.place, stopped)
        return {"train.images": float(len(images)), "train.loss": loss, "train.steps": float(steps)}

    def _images(self, split: str) -> Images:
        if split not in self._splits:
            with self._clock("read"):
                architecture = self.architecture
                self._splits[split] = load_split(
                    self.site, split, self.data.size, architecture.in_channels, architecture.num_classes
                )
        return self._splits[split]

    @contextmanager
    def _clock(self, phase: str) -> Iterator[None]:
        """Add the seconds spent inside to `phase`, less those that a phase inside it takes for itself."""
        before, start = sum(self._seconds.values()), time.perf_counter()
        yield
        inner = sum(self._seconds.values()) - before
        self._seconds[phase] = self._seconds.get(phase, 0.0) + time.perf_counter() - start - inner
