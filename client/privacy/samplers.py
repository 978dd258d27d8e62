"""The gradient of each sample by itself, for every kind of layer that U-RWKV has.

A sampler takes a layer, what went into it and the loss's gradient by what came out, and gives one gradient of each
of the layer's parameters for each sample. Opacus's own rules serve where they are exact and cheap; all of ours
contract in at least float32, whatever precision the forward pass had.
"""

import itertools
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from opacus.grad_sample.group_norm import compute_group_norm_grad_sample
from opacus.grad_sample.layer_norm import compute_layer_norm_grad_sample
from opacus.grad_sample.linear import compute_linear_grad_sample
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from urwkv.head import Head
from urwkv.leaves import PerSample, Scale

Sampled = dict[Tensor, Tensor]
"""Of each trainable parameter of a layer, (B, *shape): one gradient a sample."""

SUMMED = 4096
"""Pixels that a GPU's matrix units sum in one go."""

Sampler = Callable[[nn.Module, Sequence[Tensor], Tensor], Sampled]


def convolution(layer: nn.Conv2d, inputs: Sequence[Tensor], backward: Tensor) -> Sampled:
    """Matrix products of each sample where those are fast; else the samples become groups of one convolution.

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
            grads = backward.new_zeros(shape, dtype=_wide(backward))
        elif _is_product(layer) or (_keeps_sides(layer) and _is_exact_in_bf16(maps, backward)):
            grads = products(layer, maps, backward)
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


def products(layer: nn.Conv2d, maps: Tensor, backward: Tensor) -> Tensor:
    """(B, *filter): for each tap of the filter the sum over the pixels of dy x^T, x being what lies under that tap.

    Both maps get a border of zeros as wide as the filter reaches, and their pixels are counted through, row after row
    and sample after sample: then what lies under a tap is the same map some pixels further on, and is read where it
    is. Where that runs past a row's end dy is 0.

    Args:
        layer: one whose maps keep their sides.
        maps, backward: (B, cin, H, W) and (B, cout, H, W).
    """
    if not _is_exact_in_bf16(maps, backward):
        maps, backward = _widen(maps), _widen(backward)
    (height, width), groups = layer.kernel_size, layer.groups
    up, left = height // 2, width // 2
    x, dy = (m.permute(0, 2, 3, 1) for m in (maps, backward))
    if up or left:
        x, dy = (F.pad(m, (0, 0, left, left, up, up)) for m in (x, dy))
    row, pixels = x.shape[2], x.shape[1] * x.shape[2]
    x, dy = x.flatten(0, 2), dy.flatten(0, 2)
    if _is_product(layer):
        return _summed(dy, x, pixels)[..., None, None]
    if ends := up * row + left:
        x = F.pad(x, (0, 0, ends, ends))
    grads = torch.empty((len(maps), *layer.weight.shape), dtype=_wide(maps), device=maps.device)
    for group, (xs, dys) in enumerate(zip(x.chunk(groups, 1), dy.chunk(groups, 1), strict=True)):
        rows = slice(group * dys.shape[1], (group + 1) * dys.shape[1])
        for i, j in itertools.product(range(height), range(width)):
            under = xs[i * row + j :][: len(dys)]
            grads[:, rows, :, i, j] = _summed(dys, under, pixels)
    return grads


def _summed(dy: Tensor, x: Tensor, pixels: int) -> Tensor:
    """Of rows (B pixels, cout) and (B pixels, cin) the sum over each sample's of dy x^T, (B, cout, cin).

    Matrix units sum more coarsely than float32 has digits, which over more than SUMMED pixels would show.
    """
    parts = next(n for n in range(-(-pixels // SUMMED), pixels + 1) if pixels % n == 0)
    dy, x = (rows.unflatten(0, (-1, pixels // parts)) for rows in (dy, x))  # type: ignore[no-untyped-call]
    both = dy.transpose(1, 2), x
    sums = torch.bmm(*both) if dy.dtype == _wide(dy) else torch.bmm(*both, out_dtype=_wide(dy))
    return sums.view(-1, parts, *sums.shape[1:]).sum(dim=1) if parts > 1 else sums


def _is_exact_in_bf16(*maps: Tensor) -> bool:
    """Whether a GPU multiplies these without loss, and sums in float32."""
    return all(m.dtype == torch.bfloat16 and m.device.type == "cuda" for m in maps)


def _is_product(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.groups == 1 and _keeps_sides(layer)


def _keeps_sides(layer: nn.Conv2d) -> bool:
    """Whether the output is as large as the input, and the filters are no depthwise ones."""
    reach = tuple(side // 2 for side in layer.kernel_size)
    odd = all(side % 2 for side in layer.kernel_size)
    plain = layer.stride == layer.dilation == (1, 1) and layer.padding == reach
    return odd and plain and layer.in_channels > layer.groups


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
    Head: as_it_is(convolution),  # type: ignore[arg-type]
    nn.Linear: in_float32(compute_linear_grad_sample),
    nn.GroupNorm: in_float32(compute_group_norm_grad_sample),
    nn.LayerNorm: in_float32(compute_layer_norm_grad_sample),
    Scale: in_float32(scale),  # type: ignore[arg-type]
    PerSample: in_float32(per_sample),  # type: ignore[arg-type]
}
"""The rule of each kind of layer; a layer of another kind is refused (`client.privacy.hooks`)."""
