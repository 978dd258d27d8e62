"""The bare parameters of the network, each alone in a module that is called with one tensor.

Per-sample gradients need it so: a rule for such a leaf is one line, while a bare parameter in a big block
would send the whole block, custom operators and all, through a slow general rule.
"""

from typing import Protocol

from torch import Tensor, nn


class Scale(nn.Module):
    """Multiplies the channels, the last axis, by a learned weight: a mu or a gamma."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.clone())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


class PerSample(nn.Module):
    """Hands a learned vector to every sample: (B, ...) to (B, C). Its gradient then comes one a sample."""

    def __init__(self, initial: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(initial.clone())

    def forward(self, batch: Tensor) -> Tensor:
        return self.weight.expand(batch.shape[0], -1)


def has_hooks(layer: nn.Module) -> bool:
    """Whether a layer must be called as it is, for hooks to see what it is given, what it gives, or its gradients."""
    forward = layer._forward_hooks or layer._forward_pre_hooks
    return bool(forward or layer._backward_hooks or layer._backward_pre_hooks)


class Keep(Protocol):
    """Computes with parameters and keeps their gradients of each sample, which hooks of layers would not see."""

    def for_samples(self, vector: Tensor, samples: int) -> Tensor:
        """The vector (C,) for every sample, (B, C): one row, read again and again."""

    def convolution(self, layer: nn.Conv2d, x: Tensor, *, doubled: bool, biased: bool) -> Tensor:
        """What the layer makes of the map, doubled first or not, with its bias or without it."""


def for_samples(vector: Tensor, samples: int, keep: Keep | None) -> Tensor:
    """The vector as it is, or where gradients of each sample are kept for every sample."""
    return vector if keep is None else keep.for_samples(vector, samples)
