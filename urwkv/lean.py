"""The network for prediction alone, in as few passes over its maps as there can be: BatchNorm, no gradients.

Norms are folded into their neighbours (`urwkv.folded`). SASE and Fusion compute all that comes after their 3 x 3
convolution in one operator (`urwkv.ops.pair`). Fusion's grouped convolution is two, of skip and of the map from
below, which are never joined. Doubling and the 3 x 3 convolution after it are one (`urwkv.ops.doubling`). After every
other convolution its bias, GELU and norm are one pass (`urwkv.ops.finish`); pooling, DARM's mixing of tokens and the
head are operators (`urwkv.steps.choose`).
"""

import torch
from torch import Tensor, nn

from urwkv.blocks import Fusion, ShallowSASE, Up
from urwkv.folded import folded, line_of
from urwkv.network import URWKV
from urwkv.ops.doubling import doubled_filters
from urwkv.ops.finish import finish
from urwkv.ops.pair import pair
from urwkv.steps import Steps, choose


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
        self.detail = _conv(conv.weight, nn.Conv2d, 3, 1, groups=conv.groups)
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
        self.skip, self.below = (_conv(w, nn.Conv2d, 3, 1) for w in joint.weight.chunk(2))
        self.pair = Pair(joint, block.steps[3], block.steps[6], block.steps[8])

    def join(self, skip: Tensor, x: Tensor, up: nn.Module) -> Tensor:
        """See `urwkv.blocks.Fusion`."""
        out: Tensor = self.pair(self.skip(skip), self.below(up(x)))
        return out


class Finished(nn.Module):
    """A convolution without a bias, and the pass after it: the bias that it left, GELU and norm if there are any."""

    bias: Tensor
    scale: Tensor | None
    shift: Tensor | None

    def __init__(
        self, conv: nn.Module, bias: Tensor | None, *, gelu: bool, norm: nn.BatchNorm2d | None = None
    ) -> None:
        super().__init__()
        assert bias is not None
        self.conv, self.gelu = conv, gelu
        scale, shift = line_of(norm) if norm else (None, None)
        for name, tensor in {"bias": bias, "scale": scale, "shift": shift}.items():
            self.register_buffer(name, None if tensor is None else tensor.detach().to(bias.dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self._finish(x, None)

    def plus(self, x: Tensor, beside: Tensor) -> Tensor:
        """See `urwkv.steps.Steps`."""
        return self._finish(x, beside)

    def _finish(self, x: Tensor, beside: Tensor | None) -> Tensor:
        line = None if self.scale is None or self.shift is None else (self.scale, self.shift)
        return finish(self.conv(x), self.bias, gelu=self.gelu, line=line, beside=beside)


def lean(model: URWKV, dtype: torch.dtype | None = None) -> URWKV:
    """A copy in evaluation mode that gives the same logits, up to rounding; not to be trained.

    The given network stays as it is. Of one without BatchNorm only dtype and chosen operators differ.

    Args:
        dtype: that of the autocast under which the copy will be used: layers keep their weights in it, which autocast
            would cast in each pass. None: as they are.
    """
    copy = folded(model)
    if model.architecture.norm == "batch":
        copy.stem = _finished(copy.stem)  # type: ignore[assignment]
        shallow = LeanSASE if model.architecture.sase == "expand" else _simple
        copy.down = nn.ModuleList(map(shallow, copy.down))  # type: ignore[arg-type]
        deep = copy.deep
        deep.squeeze, deep.widen = _finished(deep.squeeze), _finished(deep.widen)  # type: ignore[assignment]
        copy.up = nn.ModuleList(map(_up, copy.up))  # type: ignore[arg-type]
        copy.fuse = nn.ModuleList(map(LeanFusion, copy.fuse))  # type: ignore[arg-type]
    choose(copy, "auto")
    if dtype is not None:
        _narrow(copy, dtype)
    return copy.eval()


def _finished(steps: nn.Module) -> Finished:
    """Of a folded chain of one convolution."""
    assert isinstance(steps, Steps)
    conv, *others = (layer for layer in steps if not isinstance(layer, nn.Identity))
    assert isinstance(conv, nn.Conv2d)
    bias, conv.bias = conv.bias, None
    norms = [layer for layer in others if isinstance(layer, nn.BatchNorm2d)]
    return Finished(conv, bias, gelu=len(others) > len(norms), norm=norms[0] if norms else None)


def _simple(block: ShallowSASE) -> ShallowSASE:
    """A folded one that does not expand."""
    block.detail, block.mix = _finished(block.detail), _finished(block.mix)  # type: ignore[assignment]
    return block


def _up(block: Up) -> Finished:
    """Of a folded one."""
    conv = block.steps[1]
    assert isinstance(conv, nn.Conv2d)
    doubled = _conv(doubled_filters(conv.weight.detach()), nn.ConvTranspose2d, 4, 2)
    return Finished(doubled, conv.bias, gelu=True)


def _narrow(network: nn.Module, dtype: torch.dtype) -> None:
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            module.to(dtype)
        elif isinstance(module, Pair):
            module.w1, module.w2 = module.w1.to(dtype), module.w2.to(dtype)


def _conv(
    weight: Tensor, kind: type[nn.Conv2d | nn.ConvTranspose2d], side: int, stride: int, groups: int = 1
) -> nn.Module:
    """A layer of these filters, as that kind has them, without a bias and with padding 1."""
    one, other = weight.shape[:2]
    cin, out = (one, other) if kind is nn.ConvTranspose2d else (other * groups, one)
    layer = kind(cin, out, side, stride=stride, padding=1, groups=groups, bias=False).to(weight)
    with torch.no_grad():
        layer.weight.copy_(weight)
    return layer
