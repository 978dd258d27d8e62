"""Local training: a few epochs of one site's images on the global model, with a fresh optimizer each round."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from client.data import Images, batches, normalise
from client.device import Place
from protocol.errors import RoundError
from protocol.seeds import seed_of
from protocol.settings import require
from strategies import Strategy
from urwkv.losses import segmentation_loss


@dataclass(frozen=True)
class TrainSettings:
    """The `train.*` settings: local epochs a round, images a step, and how the optimizer moves."""

    epochs: int
    batch: int
    lr: float
    optimizer: Literal["adamw", "sgd"]
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


def learning_rate(settings: TrainSettings, done: float) -> float:
    """The learning rate when the share `done` (0 to 1) of the study's steps has been taken.

    `cosine` falls from lr to 0 along half a cosine over all rounds (Loshchilov and Hutter, ICLR 2017,
    https://arxiv.org/abs/1608.03983, without restarts), so a federation anneals as central training would.
    """
    if settings.schedule == "constant":
        return settings.lr
    return settings.lr * 0.5 * (1.0 + math.cos(math.pi * done))


def make_optimizer(settings: TrainSettings, model: nn.Module) -> torch.optim.Optimizer:
    """A fresh optimizer over the trainable parameters, its step fused into few kernels."""
    weights = [p for p in model.parameters() if p.requires_grad]
    kind = torch.optim.SGD if settings.optimizer == "sgd" else torch.optim.AdamW
    return kind(weights, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)


def train(
    model: nn.Module,
    images: Images,
    settings: TrainSettings,
    strategy: Strategy,
    span: Span,
    place: Place,
    stopped: Callable[[], bool],
) -> tuple[float, int]:
    """Train `model` in place for `settings.epochs` epochs over `images`.

    Every order of images and every augmentation follows from (seed, site, round, epoch), so a round that is
    computed again gives the same weights.

    Args:
        stopped: asked before each step; when true, the round is given up.

    Returns:
        The mean training loss of the last epoch and the number of optimizer steps.

    Raises:
        RoundError: the loss is not finite, or the round was given up.
    """
    model.train()
    optimizer = make_optimizer(settings, model)
    weights = [p for p in model.parameters() if p.requires_grad]
    start = [w.detach().clone() for w in weights] if strategy.corrects_gradients else []
    pinned = place.device.type == "cuda"
    steps_an_epoch = -(-len(images) // settings.batch)
    steps = 0
    loss_sum = torch.zeros((), device=place.device)
    for epoch in range(settings.epochs):
        loss_sum.zero_()
        seed = seed_of(span.seed, span.site, span.round, epoch)
        for pixels, masks in batches(images, settings.batch, seed, augment=settings.augment, pinned=pinned):
            if stopped():
                raise RoundError(f"round {span.round} was given up on request")
            done = (span.round - 1 + steps / (settings.epochs * steps_an_epoch)) / span.rounds
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(settings, done)
            with place.autocast():
                logits = model(place.send(normalise(place.send(pixels))))
                loss = segmentation_loss(logits, place.send(masks))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if strategy.corrects_gradients:
                strategy.correct(weights, start)
            optimizer.step()
            loss_sum += loss.detach() * len(pixels)
            steps += 1
    mean = loss_sum.item() / len(images)
    if not math.isfinite(mean):
        raise RoundError(
            f"training diverged in round {span.round}: the loss is {mean}; lower train.lr ({settings.lr})"
        )
    return mean, steps
