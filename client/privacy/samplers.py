"""The gradient of each sample by itself, for every kind of layer that U-RWKV has.

A sampler takes a layer, what went into it and the loss's gradient by what came out, and gives one gradient of each
of the layer's parameters for each sample. Opacus's own rules serve where they are exact and cheap; all of ours
contract in at least float32, whatever precision the forward pass had.
"""

import math
from collections.abc import Callable, Sequence

import torch
from opacus.grad_sample.group_norm import compute_group_norm_grad_sample
from opacus.grad_sample.layer_norm import compute_layer_norm_grad_sample
from opacus.grad_sample.linear import compute_linear_grad_sample
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from urwkv.leaves import PerSample, Scale

Sampled = dict[Tensor, Tensor]
"""Of each trainable parameter of a layer, (B, *shape): one gradient a sample."""

SUMMED = 4096
"""Pixels that a GPU's matrix units sum in one go."""

Sampler = Callable[[nn.Module, Sequence[Tensor], Tensor], Sampled]


def convolution(layer: nn.Conv2d, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
    """Matrix products of each sample for a 1x1 filter; else the samples become groups of one convolution.

    Its weight gradient is then one a sample, and costs what the plain one does. Opacus's rule unfolds the input, k^2
    times its memory, forms the products across groups too, only to drop them, and misreads maps that lie channels
    last.

    Args:
        inputs: the maps (B, cin, H, W).
        backward: (B, cout, H', W').
    """
    (maps,) = inputs
    samples, sampled = len(maps), {}
    if layer.weight.requires_grad:
        shape = (samples, *layer.weight.shape)
        if samples == 0:
            grads = backward.new_zeros(shape)
        elif layer.kernel_size == (1, 1) and layer.groups == 1 and _plain(layer):
            grads = _products(backward, maps).view(shape)
        else:
            grads = conv2d_weight(  # type: ignore[no-untyped-call]
                _one_map(_widen(maps)),
                (samples * layer.out_channels, *layer.weight.shape[1:]),
                _one_map(_widen(backward)),
                layer.stride,
                layer.padding,
                layer.dilation,
                groups=samples * layer.groups,
            ).view(shape)
        sampled[layer.weight] = grads
    if layer.bias is not None and layer.bias.requires_grad:
        sampled[layer.bias] = backward.sum(dim=(2, 3), dtype=_wide(backward))
    return sampled


def _plain(layer: nn.Conv2d) -> bool:
    return layer.stride == (1, 1) and layer.padding == (0, 0)


def _products(backward: Tensor, maps: Tensor) -> Tensor:
    """The sum over the pixels of each sample of dy x^T, (B, cout, cin).

    A GPU multiplies bfloat16 without loss and sums in float32; of more than SUMMED pixels those sums would show.
    """
    if not (maps.dtype == backward.dtype == torch.bfloat16 and maps.device.type == "cuda"):
        return torch.bmm(_widen(backward).flatten(2), _widen(maps).flatten(2).transpose(1, 2))
    pixels = maps.shape[2] * maps.shape[3]
    parts = math.gcd(pixels, max(1, pixels // SUMMED))
    dy, x = (m.permute(0, 2, 3, 1).reshape(len(m) * parts, pixels // parts, -1) for m in (backward, maps))
    sums = torch.bmm(dy.transpose(1, 2), x, out_dtype=torch.float32)
    return sums.view(len(maps), parts, *sums.shape[1:]).sum(dim=1)


def _one_map(maps: Tensor) -> Tensor:
    """(B, C, H, W) as one map with the channels of all samples, (1, B C, H, W)."""
    return maps.contiguous().view(1, -1, *maps.shape[2:])


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
    return as_it_is(lambda layer, inputs, backward: sampler(layer, [_widen(x) for x in inputs], _widen(backward)))


def _widen(x: Tensor) -> Tensor:
    return x.to(_wide(x))


def _wide(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


SAMPLERS: dict[type[nn.Module], Sampler] = {
    nn.Conv2d: as_it_is(convolution),  # type: ignore[arg-type]
    nn.Linear: in_float32(compute_linear_grad_sample),
    nn.GroupNorm: in_float32(compute_group_norm_grad_sample),
    nn.LayerNorm: in_float32(compute_layer_norm_grad_sample),
    Scale: in_float32(scale),  # type: ignore[arg-type]
    PerSample: in_float32(per_sample),  # type: ignore[arg-type]
}
"""The rule of each kind of layer; a layer of another kind is refused (`client.privacy.hooks`)."""
