"""A round under differential privacy: the phases of `client.training`, walked by noisy steps."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from client.data import Images
from client.network import Network
from client.privacy.private_site import PrivateSite
from client.privacy.trainable import trainable_names
from client.step import make_optimizer
from client.training import Leg, Span, TrainSettings, Walk, learning_rate
from protocol.errors import RoundError
from strategies.local import Arrays


def noisy_walk(site: PrivateSite, number: int, paid: int) -> Walk:
    """What walks the phases of round `number`; all their noise is drawn from one source.

    Args:
        paid: epochs that the round was paid for; rather than walk more it raises RoundError.
    """
    # Opacus takes seconds to import, and only private training needs it
    from client.privacy.phase import private_phase

    randomness, left = site.randomness(number), paid

    def walk(
        network: Network,
        images: Images,
        settings: TrainSettings,
        leg: Leg,
        x: Arrays,
        span: Span,
        stopped: Callable[[], bool],
    ) -> tuple[float, tuple[float, ...], float]:
        moving = trainable_names(network.model, site.settings.trainable)
        phase = replace(leg.phase, only=moving if leg.phase.only is None else moving & leg.phase.only)
        steps, taken = leg.epochs * site.plan.steps, leg.begun * site.plan.steps
        nonlocal left
        left -= phase.epochs
        if left < 0:
            raise RoundError(f"the strategy asks for more than the {paid} epochs that were paid for")
        momentum = 0.0

        def optimizer(weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
            nonlocal momentum
            made = make_optimizer(settings.optimizer, list[Tensor](weights), settings.lr, settings.weight_decay)
            momentum = float(made.defaults.get("momentum", 0.0))
            return made

        network.moves()
        network.correction.set(phase, x)
        walked = private_phase(
            network.passes,
            images,
            site.units,
            site.plan,
            epochs=phase.epochs,
            make_optimizer=optimizer,
            learning_rate=lambda step: learning_rate(
                settings, (span.round - 1 + (taken + step) / steps) / span.rounds
            ),
            randomness=randomness,
            augment=settings.augment,
            only=phase.only,
            correct=network.correction.apply,
            stopped=stopped,
        )
        return walked.loss, walked.rates, momentum

    return walk
