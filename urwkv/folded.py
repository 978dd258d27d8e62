"""The network with its BatchNorms folded into neighbouring convolutions, for prediction alone.

In evaluation BatchNorm is z = a y + s, with a = weight / sqrt(variance + eps) and s = bias - a mean for each channel.
After a convolution, whose output y is, a scales its filters and the bias becomes a bias + s. Before a 1 x 1
convolution W, the filters become W a and the bias gains W s: there is no border where a padded zero would miss s.

What stays: the norm after SASE's GELU, whose output is added to the map that it came from, and the last norm of every
Fusion but the topmost, whose output a padded 3 x 3 convolution reads. GroupNorm, by an image's own statistics, stays.
"""

import copy

import torch
from torch import Tensor, nn

from urwkv.network import URWKV
from urwkv.steps import Steps


def folded(model: URWKV) -> URWKV:
    """A copy in evaluation mode that gives the same logits, up to rounding, in fewer passes; not to be trained.

    The given network stays as it is. One without BatchNorm is copied unchanged.
    """
    model = copy.deepcopy(model).eval()
    for module in list(model.modules()):
        if isinstance(module, Steps):
            _fold(module)
    topmost = model.fuse[-1]
    last: Steps = topmost.steps  # type: ignore[assignment]
    norm = last[-1]
    if isinstance(norm, nn.BatchNorm2d):
        _into_next(norm, model.head)
        last[-1] = nn.Identity()
    return model


def _fold(steps: Steps) -> None:
    for i, norm in enumerate(steps):
        if i == 0 or not isinstance(norm, nn.BatchNorm2d):
            continue
        before, after = steps[i - 1], steps[i + 1] if i + 1 < len(steps) else None
        if isinstance(before, nn.Conv2d):
            _into_previous(norm, before)
        elif isinstance(after, nn.Conv2d) and after.kernel_size == (1, 1):
            _into_next(norm, after)
        else:
            continue
        steps[i] = nn.Identity()


def line_of(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """a and s, (C,) in float64."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
    return scale, norm.bias.double() - scale * norm.running_mean.double()


@torch.no_grad()
def _into_previous(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> None:
    assert conv.bias is not None
    scale, shift = line_of(norm)
    conv.weight.copy_(conv.weight.double() * scale[:, None, None, None])
    conv.bias.copy_(conv.bias.double() * scale + shift)


@torch.no_grad()
def _into_next(norm: nn.BatchNorm2d, conv: nn.Conv2d) -> None:
    assert conv.bias is not None
    scale, shift = line_of(norm)
    conv.bias.copy_(conv.bias.double() + conv.weight[:, :, 0, 0].double() @ shift)
    conv.weight.copy_(conv.weight.double() * scale[:, None, None])
