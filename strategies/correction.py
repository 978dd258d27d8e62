"""What a phase adds to the gradients, as operations in place on tensors that stay where they are.

Between two rounds only their values change, and none is read by the host, so the steps may run as a captured graph.
"""

from collections.abc import Mapping

import torch

from strategies.local import Arrays, Phase

Tensors = Mapping[str, torch.Tensor]


class Correction:
    """g <- g + pull (y - x) + drift for the trainable tensors of one model, between the backward pass and the step.

    Under differential privacy that is after clipping and noise: x, drift and y are known without the data of the
    step, so it costs no epsilon.

    Args:
        weights: the trainable tensors y, by name.
    """

    def __init__(self, weights: Tensors) -> None:
        self._all = dict(weights)
        self._anchors: dict[str, torch.Tensor] = {}
        self._drifts: dict[str, torch.Tensor] = {}
        self._pull = 0.0
        self._pulled: list[str] = []
        self._drifting: list[str] = []

    def set(self, phase: Phase, x: Arrays | Tensors) -> None:
        """Take over a phase's corrections.

        Args:
            phase: of it `only`, `pull` and `drift` count.
            x: the global model that `pull` pulls towards.
        """
        moving = [name for name in self._all if phase.only is None or name in phase.only]
        self._pull = phase.pull
        self._pulled = moving if phase.pull else []
        self._drifting = [name for name in moving if name in phase.drift]
        self._fill(self._anchors, self._pulled, x)
        self._fill(self._drifts, self._drifting, phase.drift)

    @property
    def form(self) -> tuple[float, tuple[str, ...], tuple[str, ...]]:
        """What `apply` does whatever the values of tensors are: how hard it pulls which of them, and which drift."""
        return self._pull, tuple(self._pulled), tuple(self._drifting)

    @torch.no_grad()
    def apply(self) -> None:
        """Add to the gradients in place; a tensor that the loss did not touch has gradient 0."""
        if self._pulled:
            weights = [self._all[name] for name in self._pulled]
            steps = torch._foreach_sub(weights, [self._anchors[name] for name in self._pulled])
            torch._foreach_add_(self._gradients(self._pulled), steps, alpha=self._pull)
        if self._drifting:
            torch._foreach_add_(self._gradients(self._drifting), [self._drifts[name] for name in self._drifting])

    def _gradients(self, names: list[str]) -> list[torch.Tensor]:
        gradients = []
        for weight in (self._all[name] for name in names):
            if weight.grad is None:
                weight.grad = torch.zeros_like(weight)
            gradients.append(weight.grad)
        return gradients

    @torch.no_grad()
    def _fill(self, kept: dict[str, torch.Tensor], names: list[str], values: Arrays | Tensors) -> None:
        for name in names:
            if name not in kept:
                kept[name] = torch.empty_like(self._all[name], requires_grad=False)
            value = values[name]
            kept[name].copy_(value if isinstance(value, torch.Tensor) else torch.tensor(value))
