"""The gradient of each sample by itself, for every kind of layer that U-RWKV has.

A sampler takes a layer, what went into it and the loss's gradient by what came out, and gives one gradient of each
of the layer's parameters for each sample. Opacus's own rules serve where they are exact and cheap; all of ours
contract in at least float32, whatever precision the forward pass had.
"""

from collections.abc import Callable, Sequence

import torch
from opacus.grad_sample.group_norm import compute_group_norm_grad_sample
from opacus.grad_sample.layer_norm import compute_layer_norm_grad_sample
from torch import Tensor, nn

from client.privacy.filters import filters, over_pixels, over_rows, wide, widen
from urwkv.head import Head
from urwkv.leaves import PerSample, Scale

Sampled = dict[Tensor, Tensor]
"""Of each trainable parameter of a layer, (B, *shape): one gradient a sample."""

Sampler = Callable[[nn.Module, Sequence[Tensor], Tensor], Sampled]


def convolution(layer: nn.Conv2d, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
    """See `client.privacy.filters.filters`; the gradient of the bias is the sum over the pixels.

    Args:
        inputs: the maps (B, cin, H, W).
        backward: (B, cout, H', W').
    """
    (maps,) = inputs
    sampled = {}
    if layer.weight.requires_grad:
        sampled[layer.weight] = filters(layer, maps, backward)
    if layer.bias is not None and layer.bias.requires_grad:
        sampled[layer.bias] = over_pixels(backward)
    return sampled


def linear(layer: nn.Linear, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
    """Of tokens (B, ..., cin), and (B, ..., cout) of the gradient, in whose dtype the layer multiplied them."""
    x, dy = (rows.unsqueeze(1).flatten(1, -2) for rows in (inputs[0], backward))
    sampled = {}
    if layer.weight.requires_grad:
        sampled[layer.weight] = over_rows(x, dy)
    if layer.bias is not None and layer.bias.requires_grad:
        sampled[layer.bias] = dy.sum(1, dtype=wide(dy))
    return sampled


def scale(layer: Scale, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
    """y = x w over the last axis: the gradient of w is x dy, summed over all axes but sample and channel."""
    return {layer.weight: (inputs[0] * backward).flatten(1, -2).sum(dim=1)}


def per_sample(layer: PerSample, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
    """The layer hands w to every sample, so what comes back (B, C) is one gradient a sample already."""
    return {layer.weight: backward}


def as_it_is(sampler: Sampler) -> Sampler:
    """The sampler, outside of autocast."""

    def called(layer: nn.Module, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
        with torch.autocast(backward.device.type, enabled=False):
            return sampler(layer, inputs, backward)

    return called


def in_float32(sampler: Sampler) -> Sampler:
    """The sampler on inputs and gradients of at least float32, outside of autocast."""
    return as_it_is(lambda layer, inputs, backward: sampler(layer, [widen(x) for x in inputs], widen(backward)))


SAMPLERS: dict[type[nn.Module], Sampler] = {
    nn.Conv2d: as_it_is(convolution),  # type: ignore[arg-type]
    Head: as_it_is(convolution),  # type: ignore[arg-type]
    nn.Linear: as_it_is(linear),  # type: ignore[arg-type]
    nn.GroupNorm: in_float32(compute_group_norm_grad_sample),
    nn.LayerNorm: in_float32(compute_layer_norm_grad_sample),
    Scale: in_float32(scale),  # type: ignore[arg-type]
    PerSample: in_float32(per_sample),  # type: ignore[arg-type]
}
"""The rule of each kind of layer; a layer of another kind is refused (`client.privacy.hooks`)."""
