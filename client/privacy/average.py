"""The moving average of the weights along noisy steps: much of the noise cancels, and it costs no epsilon."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Average:
    """a <- b a + (1 - b) y after each step, b = min(decay, (1 + t) / (10 + t)) after t steps (De et al. 2022,
    https://arxiv.org/abs/2204.13650, section 3): short phases are averaged too.

    Args:
        weights: y, the tensors that learn, as a phase begins.
    """

    def __init__(self, weights: Sequence[Tensor], decay: float) -> None:
        self.decay = decay
        self._weights = list(weights)
        self._average = [weight.detach().clone() for weight in self._weights]
        self._steps = 0

    @torch.no_grad()
    def update(self) -> None:
        """Take one step's weights in."""
        self._steps += 1
        b = min(self.decay, (1 + self._steps) / (10 + self._steps))
        torch._foreach_lerp_(self._average, self._weights, 1 - b)

    @torch.no_grad()
    def write(self) -> None:
        """Put the average into the weights."""
        torch._foreach_copy_(self._weights, self._average)
