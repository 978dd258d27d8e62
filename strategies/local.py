"""What a site does in a round, as plain data: the phases that a strategy asks for and the journeys that come of them.

The strategy says it in arrays and numbers, so that any loop can carry it out: the trainer of a hospital on its
GPU, the testbed on a quadratic.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy.typing as npt

Arrays = Mapping[str, npt.NDArray[Any]]
State = dict[str, npt.NDArray[Any]]

TRAVEL = "train.travel"
"""Scalar: the sum of the local learning rates over the site's steps; K_i eta_l when the rate is constant."""

RATE = "train.rate"
"""Scalar: eta_l, the mean local learning rate over the site's steps."""

EFFECTIVE_STEPS = "train.effective_steps"
"""Scalar: a_i, how often the site's mean gradient went into y_i - x; K_i for plain SGD at a constant rate."""

STEPS = (TRAVEL, RATE, EFFECTIVE_STEPS)
"""The scalars that follow from a journey."""

LOSS_BEFORE = "train.loss_before"
"""Scalar: F_i(x), the loss of the model that the site starts from over its training images, as they are."""

VAL_LOSS = "val.loss"
"""Scalar: the loss of the model as it came over the site's validation images."""

VAL_LOSS_AFTER = "val.loss_after"
"""Scalar: the loss of the site's own model y_i over its validation images."""

LOSSES = (LOSS_BEFORE, VAL_LOSS, VAL_LOSS_AFTER)
"""The scalars that whoever runs the steps has to measure."""


@dataclass(frozen=True)
class Phase:
    """Some epochs of local training:  y <- y - eta_l (g(y) + pull (y - x) + drift).

    Attributes:
        epochs: passes over the site's images; 0 is allowed and does nothing.
        start: the model that the phase begins from; None goes on from where the phase before ended.
        only: names of the trainable tensors that move; None is all of them.
        pull: strength of the pull towards x, the global model as it came.
        drift: what each step adds to the gradient, by name; constant over the phase. A tensor that is not
            named gets nothing.
    """

    epochs: int
    start: Arrays | None = None
    only: frozenset[str] | None = None
    pull: float = 0.0
    drift: Arrays = field(default_factory=dict)


@dataclass(frozen=True)
class Journey:
    """Where a phase ended and the steps that led there.

    Attributes:
        end: the model after the last step.
        rates: the local learning rate of each step, in order.
        momentum: r of the local SGD.
    """

    end: Arrays
    rates: tuple[float, ...]
    momentum: float = 0.0

    def scalars(self) -> dict[str, float]:
        """What strategies may ask a site to report of its steps; empty without a step.

        With momentum the gradient of step k goes into the steps k, k+1, ... with 1, r, r^2, ...; counted over
        all K steps at rates eta_k, in units of the first one (FedNova, https://arxiv.org/abs/2007.07481, section 4):

            a = sum_k eta_k (1 - r^k) / (1 - r) / eta_1,   that is  (K - r (1 - r^K) / (1 - r)) / (1 - r)
        """
        if not self.rates:
            return {}
        travel, r = math.fsum(self.rates), self.momentum
        counted = math.fsum(eta * (1 - r**k) / (1 - r) for k, eta in enumerate(self.rates, 1))
        return {TRAVEL: travel, RATE: travel / len(self.rates), EFFECTIVE_STEPS: counted / self.rates[0]}
