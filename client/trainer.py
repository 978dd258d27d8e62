"""The trainer of one hospital: holds its data, its device and its network, and answers the server's tasks.

Whoever brings the tasks, a courier in the same process or a service on a socket, calls `Trainer.answer`.
"""

import threading
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from client.data import Images, load_split
from client.device import PlaceSettings, find_place
from client.evaluation import evaluate, image_values
from client.gatekeeper import Gatekeeper, nameless
from client.memory import PERSONAL, StateFolder
from client.network import network_at
from client.privacy.policy import Policy
from client.sender import Sender
from client.site import read_site
from client.training import Span, TrainSettings, train
from protocol.codec import TransferSettings
from protocol.errors import RoundError, RunError
from protocol.messages import EVALUATE, TRAIN, Reply, Task
from protocol.packing import Schema
from protocol.settings import Table, require, section
from protocol.splits import SPLITS
from protocol.strategy import make_strategy
from strategies.local import LOSS_BEFORE, LOSSES, VAL_LOSS, VAL_LOSS_AFTER, Arrays
from strategies.site import LocalRound, Memory
from urwkv import Architecture
from urwkv.weights import save_model


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


class Trainer:
    """One site's trainer; keeps data and network from round to round, and one set of settings.

    Args:
        folder: the site's folder (see `client.site`).
        settings: the run's complete table.
        policy: the hospital's own word on what its data may be used for.
        index: the site's number in a simulation, which spreads sites over GPUs.
        state: the folder in which the site keeps what it remembers of this study, and of no other (see
            `client.memory`, `client.outbox`); made when it is needed. None where nothing is to be kept.
        name: the site's name in the study; empty: the folder's.
        pretend: whether this is a site of a simulation (see `client.gatekeeper`).

    Raises:
        DataError: the folder is not a site that can be trained on.
        PolicyError: the hospital does not allow the study.
        LedgerError: its privacy ledger is missing or damaged.
        SettingsError: the settings are impossible here.
        RunError: the site has to keep something, and there is no folder for it.
    """

    def __init__(
        self,
        folder: Path,
        settings: Table,
        policy: Policy,
        *,
        index: int = 0,
        state: Path | None = None,
        name: str = "",
        pretend: bool = False,
    ) -> None:
        self.settings = settings
        self.seed = int(settings["seed"])
        self.place = find_place(section(settings, "train", PlaceSettings), index)
        self.data = section(settings, "data", SiteData)
        self.training = section(settings, "train", TrainSettings)
        self.architecture = section(settings, "model", Architecture)
        self.strategy = make_strategy(settings)
        if self.strategy.remembers and state is None:
            raise RunError(f"{settings['federation.strategy']} has a site remember its state: name a folder for it")
        self.state = state
        with nameless(folder, pretend):
            self.site = read_site(folder, seed=self.seed, val=self.data.val, test=self.data.test, name=name)
        self.network = network_at(self.architecture, self.place)
        self.gatekeeper = Gatekeeper(policy, settings, self.strategy, self.site, state, pretend=pretend)
        self._sender = Sender(section(settings, "transfer", TransferSettings).codec, self.network.schema, state)
        self._splits: dict[str, Images] = {}
        self._seconds: dict[str, float] = {}
        self._stop = threading.Event()

    def stop(self) -> None:
        """Give up what is being computed, within one step, and every later task."""
        self._stop.set()

    def answer(self, task: Task) -> Reply:
        """Do one task.

        A training task first evaluates the model as it came, with the site's own part where it has one, then
        trains it, so one exchange a round both scores the last global model and makes the next.

        Raises:
            PolicyError: the model is refused, or the round would pass the privacy budget.
            RoundError: the model's schema is not this network's, the site does not remember what the server counts
                on, or training failed.
            RunError: what the site remembers is torn.
        """
        with self.network.turn:
            return self.gatekeeper.answer(task, self._compute)

    def _compute(self, task: Task) -> Reply:
        """The whole reply, with all that the site knows."""
        self._seconds = {}
        scalars: dict[str, float] = {}
        model = b""
        if task.kind in (TRAIN, EVALUATE):
            with self._clock("load"):
                local = self._begin(task)
            if task.split:
                scalars |= self._evaluate(task.split)
                scalars |= self.gatekeeper.noised(task, self._values)
            if task.kind == TRAIN:
                model, trained = self._train(local, task, scalars)
                scalars |= trained
                with self._clock("pack"):
                    model = self._sender.encode(task, model)
            elif task.split == "test":
                self._leave_personal(local, task.round)
        if not task.model:
            scalars |= {f"{split}.images": float(len(self.site.split(split))) for split in SPLITS}
        scalars |= {f"seconds.{phase}": seconds for phase, seconds in self._seconds.items()}
        return Reply(self.site.name, task.round, self.network.schema.hash if model else "", model, scalars)

    def _begin(self, task: Task) -> LocalRound:
        """Take the task's model, and what belongs to it here: the site's state and what came beside the model."""
        if task.schema != self.network.schema.hash:
            raise RoundError(
                "the server's model has another schema than this site's network: code or settings differ"
            )
        self.gatekeeper.admit(task)
        x = self.network.take(task.model)
        received: Arrays = {}
        if task.kind == TRAIN:
            beside = Schema.like(self.strategy.broadcast(x))
            if beside.tensors and task.received_schema != beside.hash:
                raise RoundError("what came beside the server's model is not what this site's strategy expects")
            received = beside.unpack(task.received)
            self.gatekeeper.admit_beside(received)
        memory = Memory(StateFolder(self.state, task.study) if self.strategy.remembers and self.state else None)
        try:
            local = LocalRound(self.strategy, memory, task.round, task.accepted, x, received, task.keep)
        except ValueError as error:
            raise RoundError(str(error)) from error
        self.network.hold(local.personal)
        return local

    def _evaluate(self, split: str) -> dict[str, float]:
        """The scores of the model that the network holds over a split."""
        images = self._images(split)
        classes = self.architecture.num_classes
        with self._clock("evaluate"):
            scores = evaluate(self.network.logits, images, classes, self.place, surfaces=split == "test")
        return {f"{split}.{name}": value for name, value in scores.items()}

    def _values(self, split: str, metrics: Collection[str]) -> dict[str, npt.NDArray[np.float64]]:
        """What each image of a split scores."""
        classes = self.architecture.num_classes
        with self._clock("evaluate"):
            return image_values(self.network.logits, self._images(split), classes, self.place, metrics)

    def _train(self, local: LocalRound, task: Task, scores: Mapping[str, float]) -> tuple[bytes, dict[str, float]]:
        """Pay, train and remember: the packed model to send, and the numbers beside it."""
        walk, spent = self.gatekeeper.pay(task)
        images, asked = self._images("train"), set(self.strategy.reports)
        losses = {VAL_LOSS: scores[VAL_LOSS]} if VAL_LOSS in scores else {}
        if LOSS_BEFORE in asked:
            losses[LOSS_BEFORE] = self._evaluate("train")["train.loss"]
        span = Span(local.number, int(self.settings["federation.rounds"]), self.seed, self.site.name)
        with self._clock("train"):
            phases = local.phases(self.training.epochs)
            trained = train(self.network, images, self.training, phases, local.x, span, self._stop.is_set, walk)
        if VAL_LOSS_AFTER in asked and len(self._images("val")):
            losses[VAL_LOSS_AFTER] = self._evaluate("val")[VAL_LOSS]
        if missing := asked & set(LOSSES) - losses.keys():
            raise RoundError(f"site {self.site.name} has no images to measure {', '.join(sorted(missing))} on")
        with self._clock("pack"):
            arrays, reported = local.close(trained.journeys, losses)
            packed = self.network.schema.pack(arrays) if self.strategy.kept(local.x) else trained.packed
        counts = {"train.images": float(len(images)), "train.loss": trained.loss, "train.steps": float(trained.steps)}
        return packed, counts | reported | spent

    def _leave_personal(self, local: LocalRound, best_round: int) -> None:
        """Leave the model that was tested beside the site's state, where it is one of the site's own."""
        if local.personal is local.x or self.state is None:
            return
        tensors = {name: torch.from_numpy(array.copy()) for name, array in local.personal.items()}
        words = {"round": str(best_round), "data.size": str(self.data.size), "site": self.site.name}
        save_model(self.state / PERSONAL, tensors, self.architecture, words)

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
