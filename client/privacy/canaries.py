"""A trial of the noisy step itself: canaries that shout as loud as clipping lets them, and are listened for.

Each canary is a gradient along an axis of its own, far above the bound; by a fair coin it is among the patients or
not. The steps then run as in training: draws, clipping, sum, noise. Who hears every noisy gradient, as a server may,
adds up each canary's axis and guesses. Network and images do not matter here, so a claim that this breaks is wrong.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from client.privacy.accounting import Charge
from client.privacy.clipping import PrivateOptimizer
from client.privacy.draws import draw
from client.privacy.evidence import one_run_epsilon
from client.privacy.randomness import Randomness
from client.privacy.settings import Clipping

LOUD = 1e6
"""Norm of a canary's gradient, in units of the bound."""

CONFIDENCE = 0.999
"""Of the bound: a claim that is true and tight is called broken once in a thousand trials."""


@dataclass(frozen=True)
class Heard:
    """Right guesses of how many, and the least epsilon that leaves them possible."""

    correct: int
    guesses: int
    epsilon: float


def canary_trial(
    charges: Sequence[Charge],
    delta: float,
    randomness: Randomness,
    *,
    clipping: Clipping = "flat",
    canaries: int = 1000,
    share: float = 0.2,
) -> Heard:
    """Run the steps of `charges` over canaries alone, and guess the `share` of them that is heard the clearest."""
    inside = randomness.uniforms(canaries) < 0.5
    units = [np.array([axis]) for axis in np.flatnonzero(inside)]
    weight = nn.Parameter(torch.zeros(canaries))
    heard = torch.zeros(canaries, dtype=torch.float64)
    for charge in charges:
        optimizer = PrivateOptimizer(
            torch.optim.SGD([weight], lr=0.0),
            ["canary.weight"],
            noise=charge.noise,
            bound=1.0,
            batch=1.0,
            clipping=clipping,
            randomness=randomness,
        )
        # the sum of many steps matters through the mean, so weigh kinds of steps by what they tell
        tells = charge.rate / max(charge.noise, 1e-12) ** 2
        for _ in range(charge.steps):
            rows = torch.from_numpy(draw(units, charge.rate, randomness))
            weight.grad_sample = torch.zeros(len(rows), canaries)  # type: ignore[attr-defined]
            weight.grad_sample[torch.arange(len(rows)), rows] = LOUD  # type: ignore[attr-defined]
            optimizer.pre_step()
            if weight.grad is not None:
                heard += tells * weight.grad.double()
            optimizer.zero_grad(set_to_none=True)
    order = torch.argsort(heard).numpy()
    half = max(1, round(share * canaries / 2))
    correct = int((~inside[order[:half]]).sum() + inside[order[-half:]].sum())
    return Heard(correct, 2 * half, one_run_epsilon(canaries, 2 * half, correct, delta, CONFIDENCE))
