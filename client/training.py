"""Local training: the phases of a round on one site's images, each with a fresh optimizer."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from client.data import Images, batch_starts, batches
from client.network import Network
from client.step import MOMENTUM, Kind, Rule
from protocol.errors import RoundError
from protocol.seeds import seed_of
from protocol.settings import require
from strategies.local import Arrays, Journey, Phase


@dataclass(frozen=True)
class TrainSettings:
    """The `train.*` settings: local epochs a round, images a step, and how the optimizer moves."""

    epochs: int
    batch: int
    lr: float
    optimizer: Kind
    weight_decay: float
    schedule: Literal["cosine", "constant"]
    augment: bool

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        require(self.batch >= 1, "batch", self.batch, "at least 1")
        require(self.lr > 0, "lr", self.lr, "above 0")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "at least 0")


@dataclass(frozen=True)
class Span:
    """Where a round lies in the study: its number from 1, of how many; the seed of the study and the site's name."""

    round: int
    rounds: int
    seed: int
    site: str


@dataclass(frozen=True)
class Leg:
    """A phase and where it lies among those that train one model: epochs before it, and epochs of them all."""

    phase: Phase
    begun: int
    epochs: int


@dataclass(frozen=True)
class Trained:
    """What came of a round's training.

    Attributes:
        journeys: one a phase.
        packed: the end of the last one, packed.
        loss: the mean training loss over the last epoch.
        steps: optimizer steps, over all phases.
    """

    journeys: list[Journey]
    packed: bytes
    loss: float
    steps: int


Walk = Callable[
    [Network, Images, TrainSettings, Leg, Arrays, Span, Callable[[], bool]], tuple[float, tuple[float, ...], float]
]
"""What runs a phase: `run_phase`, or `client.private_training`'s under differential privacy."""


def learning_rate(settings: TrainSettings, done: float) -> float:
    """The learning rate when the share `done` (0 to 1) of the study's steps has been taken.

    `cosine` falls from lr to 0 along half a cosine over all rounds (Loshchilov and Hutter, ICLR 2017,
    https://arxiv.org/abs/1608.03983, without restarts), so a federation anneals as central training would.
    """
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))


def train(
    network: Network,
    images: Images,
    settings: TrainSettings,
    phases: Sequence[Phase],
    x: Arrays,
    span: Span,
    stopped: Callable[[], bool],
    walk: Walk | None = None,
) -> Trained:
    """Train the network through the phases of a round.

    Every order of images and every augmentation follows from (seed, site, round, epoch), so a round that is
    computed again gives the same weights.

    Args:
        x: the global model as it came.
        stopped: asked before each step; when true, the round is given up.
        walk: what runs each phase; None: `run_phase`.

    Raises:
        RoundError: the loss is not finite, or the round was given up.
    """
    journeys: list[Journey] = []
    packed, loss = b"", 0.0
    for leg in legs(phases):
        if leg.phase.start is not None:
            network.hold(leg.phase.start)
        mean, rates, momentum = (walk or run_phase)(network, images, settings, leg, x, span, stopped)
        loss = mean if rates else loss
        packed = network.read()
        journeys.append(Journey(network.schema.unpack(packed), rates, momentum))
    return Trained(journeys, packed, loss, sum(len(journey.rates) for journey in journeys))


def legs(phases: Sequence[Phase]) -> list[Leg]:
    """The phases with their places; one that names its start begins with another model.

    Epochs are counted, and the learning rate falls, over all phases of one model. So where a site trains two models
    in a round, each goes through the whole schedule, and the shared one moves as if the other were not there.
    """
    firsts = [number for number, phase in enumerate(phases) if phase.start is not None or not number]
    placed = []
    for first, end in zip(firsts, [*firsts[1:], len(phases)], strict=True):
        own = phases[first:end]
        epochs = [phase.epochs for phase in own]
        placed += [Leg(phase, sum(epochs[:number]), sum(epochs)) for number, phase in enumerate(own)]
    return placed


def run_phase(
    network: Network,
    images: Images,
    settings: TrainSettings,
    leg: Leg,
    x: Arrays,
    span: Span,
    stopped: Callable[[], bool],
    fewest: int = 1,
) -> tuple[float, tuple[float, ...], float]:
    """Run one phase from the model that the network holds, to wherever it then is.

    Args:
        fewest: images that a step may be of, where there are as many.

    Returns:
        The mean loss of its last epoch, the learning rate of every step, the momentum; zeros when nothing moves.
    """
    phase, rates = leg.phase, list[float]()
    moving = [name for name in network.weights if phase.only is None or name in phase.only]
    if not moving:
        return 0.0, (), 0.0
    network.moves()
    network.model.train()
    network.correction.set(phase, x)
    an_epoch = len(batch_starts(len(images), settings.batch, fewest))
    steps, taken = leg.epochs * an_epoch, leg.begun * an_epoch
    pinned = network.place.device.type == "cuda"
    loss_sum = torch.zeros((), device=network.place.device)
    with only(moving, network.weights):
        step = network.steps.begin(Rule(settings.optimizer, settings.weight_decay), moving, settings.batch)
        for epoch in range(leg.begun, leg.begun + phase.epochs):
            loss_sum.zero_()
            seed = seed_of(span.seed, span.site, span.round, epoch)
            drawn = batches(images, settings.batch, seed, augment=settings.augment, pinned=pinned, fewest=fewest)
            for pixels, masks in drawn:
                if stopped():
                    raise RoundError(f"round {span.round} was given up on request")
                rates.append(learning_rate(settings, (span.round - 1 + (taken + len(rates)) / steps) / span.rounds))
                loss_sum += step(pixels, masks, rates[-1]) * len(pixels)
    mean = loss_sum.item() / len(images)
    if not math.isfinite(mean):
        raise RoundError(
            f"training diverged in round {span.round}: the loss is {mean}; lower train.lr ({settings.lr})"
        )
    return mean, tuple(rates), MOMENTUM


@contextmanager
def only(moving: Collection[str], weights: Mapping[str, Tensor]) -> Iterator[None]:
    """Inside the `with`, gradients are computed for the weights named in `moving` alone.

    The statistics of batch normalisation follow the images whatever moves, as they do wherever a network trains.
    """
    try:
        for name, weight in weights.items():
            weight.requires_grad_(name in moving)
        yield
    finally:
        for weight in weights.values():
            weight.requires_grad_(True)
