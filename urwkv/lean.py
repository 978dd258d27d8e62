"""The network for prediction alone, in as few passes over its maps as there can be: BatchNorm, no gradients.

Norms are folded into their neighbours (`urwkv.folded`). SASE and Fusion compute all that comes after their 3 x 3
convolution in one operator (`urwkv.ops.pair`). Fusion's grouped convolution is two, of skip and of the map from
below, which are never joined. Doubling and the 3 x 3 convolution after it are one (`urwkv.ops.doubling`). DARM
mixes tokens with their neighbours in one operator where it can (`urwkv.mixing`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from urwkv.blocks import Fusion, ShallowSASE, Up
from urwkv.folded import folded, line_of
from urwkv.mixing import Mixing
from urwkv.network import URWKV
from urwkv.ops.doubling import doubled_filters
from urwkv.ops.pair import pair


class Pair(nn.Module):
    """The tensors of one `urwkv.ops.pair.pair`: folded 1 x 1 convolutions, a norm, and the bias before."""

    bias: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    scale: Tensor
    shift: Tensor

    def __init__(self, before: nn.Module, first: nn.Module, second: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        assert isinstance(before, nn.Conv2d)
        assert isinstance(first, nn.Conv2d)
        assert isinstance(second, nn.Conv2d)
        if isinstance(norm, nn.BatchNorm2d):
            scale, shift = line_of(norm)
        else:
            scale, shift = (first.weight.new_full((second.out_channels,), number) for number in (1.0, 0.0))
        parts = {"w1": first.weight[:, :, 0, 0], "b1": first.bias, "w2": second.weight[:, :, 0, 0], "b2": second.bias}
        for name, tensor in {**parts, "bias": before.bias, "scale": scale, "shift": shift}.items():
            assert tensor is not None
            self.register_buffer(name, tensor.detach().to(first.weight.dtype).contiguous())

    def forward(self, a: Tensor, b: Tensor, *, residual: bool = False) -> Tensor:
        line = self.scale, self.shift
        return pair(a, b, self.bias, (self.w1, self.b1), (self.w2, self.b2), line, residual=residual)


class LeanSASE(nn.Module):
    """A folded `ShallowSASE` that expands."""

    def __init__(self, block: ShallowSASE) -> None:
        super().__init__()
        conv, norm = block.detail[0], block.detail[2]
        assert isinstance(conv, nn.Conv2d)
        self.detail = _conv(conv.weight, None, nn.Conv2d, 3, 1, groups=conv.groups)
        self.pair = Pair(conv, block.mix[0], block.mix[3], norm)
        self.residual = block.residual

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.pair(self.detail(x), x, residual=self.residual)
        return out


class LeanFusion(nn.Module):
    """A folded `Fusion`, of skip and the map from below."""

    def __init__(self, block: Fusion) -> None:
        super().__init__()
        joint = block.steps[0]
        assert isinstance(joint, nn.Conv2d)
        self.skip, self.below = (_conv(w, None, nn.Conv2d, 3, 1) for w in joint.weight.chunk(2))
        self.pair = Pair(joint, block.steps[3], block.steps[6], block.steps[8])

    def join(self, skip: Tensor, below: Tensor) -> Tensor:
        out: Tensor = self.pair(self.skip(skip), self.below(below))
        return out


class LeanUp(nn.Module):
    """A folded `Up`."""

    def __init__(self, block: Up) -> None:
        super().__init__()
        conv = block.steps[1]
        assert isinstance(conv, nn.Conv2d)
        self.doubled = _conv(doubled_filters(conv.weight.detach()), conv.bias, nn.ConvTranspose2d, 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(self.doubled(x))


def lean(model: URWKV) -> URWKV:
    """A copy in evaluation mode that gives the same logits, up to rounding; not to be trained.

    The given network stays as it is. One without BatchNorm is copied unchanged,
    but for how DARM mixes.
    """
    copy = folded(model)
    if model.architecture.norm == "batch":
        if model.architecture.sase == "expand":
            copy.down = nn.ModuleList(map(LeanSASE, copy.down))  # type: ignore[arg-type]
        copy.up = nn.ModuleList(map(LeanUp, copy.up))  # type: ignore[arg-type]
        copy.fuse = nn.ModuleList(map(LeanFusion, copy.fuse))  # type: ignore[arg-type]
    for module in copy.modules():
        if isinstance(module, Mixing):
            module.backend = "auto"
    return copy.eval()


def _conv(
    weight: Tensor,
    bias: Tensor | None,
    kind: type[nn.Conv2d | nn.ConvTranspose2d],
    side: int,
    stride: int,
    groups: int = 1,
) -> nn.Module:
    """A layer of these filters, as that kind has them, and padding 1."""
    one, other = weight.shape[:2]
    cin, out = (one, other) if kind is nn.ConvTranspose2d else (other * groups, one)
    layer = kind(cin, out, side, stride=stride, padding=1, groups=groups, bias=bias is not None).to(weight)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            assert layer.bias is not None
            layer.bias.copy_(bias)
    return layer
