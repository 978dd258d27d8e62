"""The network as it is handed out: with its normalisation inside, and in a form that traces for any size."""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from urwkv.network import STRIDE, URWKV
from urwkv.ops.plain import FLOAT32_REACH, biwkv_plain


class Deployed(nn.Module):
    """Pixels (B, C, H, W), 0 to 255, to logits (B, num_classes, H, W), traceable for any B, H and W.

    The network pads only where a side asks for it, which is a choice that a trace would make once and for all.
    Here the edge is repeated by indexing, up to no rows at all.
    """

    def __init__(self, network: URWKV, mean: float, scale: float) -> None:
        super().__init__()
        self.network, self.mean, self.scale = network, mean, scale

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        rows = torch.arange((height + STRIDE - 1) // STRIDE * STRIDE, device=images.device).clamp(max=height - 1)
        columns = torch.arange((width + STRIDE - 1) // STRIDE * STRIDE, device=images.device).clamp(max=width - 1)
        x = (images - self.mean) / self.scale
        logits: Tensor = self.network(x.index_select(2, rows).index_select(3, columns))
        return logits[..., :height, :width]


class PlainGroupNorm(nn.Module):
    """Group normalisation by means of means, which a runtime may sum in any order.

    As it stands it would become ONNX's InstanceNormalization, whose one long float32 sum in ONNX Runtime puts
    logits off by 7e-3 at 1024 x 1024 pixels.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        groups = torch.unflatten(x, 1, (self.norm.num_groups, -1))
        centred = groups - _mean(groups)
        normed: Tensor = (centred * torch.rsqrt(_mean(centred.square()) + self.norm.eps)).flatten(1, 2)
        return normed * self.norm.weight[:, None, None] + self.norm.bias[:, None, None]


def _mean(groups: Tensor) -> Tensor:
    """The mean over channels, rows and columns of (B, groups, channels, H, W), a dimension at a time."""
    return groups.mean(-1, keepdim=True).mean(-2, keepdim=True).mean(-3, keepdim=True)


def traceable(deployed: Deployed) -> Deployed:
    """A copy that computes the same by operations that any number of tokens and pixels can go through."""
    deployed = copy.deepcopy(deployed)
    spatial = deployed.network.darm.spatial
    reach = max(float(leaf.weight.detach().abs().max()) for leaf in (spatial.decay, spatial.first))
    spatial.biwkv = partial(biwkv_plain, dtype=torch.float32 if reach <= FLOAT32_REACH else torch.float64)
    for parent in list(deployed.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.GroupNorm):
                setattr(parent, name, PlainGroupNorm(child))
    return deployed
