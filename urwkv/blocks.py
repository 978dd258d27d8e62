"""The convolutional blocks: stem, SASE (shallow and deep), the steps up, Fusion. All maps are (B, C, H, W)."""

from typing import Literal

import torch
from torch import Tensor, nn

from urwkv.leaves import has_hooks
from urwkv.ops.doubling import Doubling
from urwkv.steps import Steps

Norm = Literal["batch", "group"]
Sase = Literal["expand", "simple"]

CHANNELS_PER_GROUP = 8


def make_norm(channels: int, norm: Norm) -> nn.Module:
    """BatchNorm, or GroupNorm over groups of 8 channels (differential privacy and small batches want it)."""
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    return nn.GroupNorm(channels // CHANNELS_PER_GROUP, channels)


def depthwise(channels: int) -> nn.Conv2d:
    """One 3x3 filter a channel."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)


def conv_norm_gelu(cin: int, cout: int, norm: Norm) -> Steps:
    """Conv3x3, Norm, GELU: the stem, and the step after each upsampling."""
    return Steps(nn.Conv2d(cin, cout, 3, padding=1), make_norm(cout, norm), nn.GELU())


class ShallowSASE(nn.Module):
    """SASE where detail matters: a residual depthwise filter, then channels mixed pixel by pixel.

    Args:
        sase: "expand" widens to `ratio` * cin channels and back (the paper's figure); "simple" is one
            linear step without activation.
    """

    def __init__(self, cin: int, cout: int, norm: Norm, sase: Sase, ratio: int) -> None:
        super().__init__()
        self.detail = Steps(depthwise(cin), nn.GELU(), make_norm(cin, norm))
        if sase == "expand":
            self.mix = Steps(
                nn.Conv2d(cin, ratio * cin, 1),
                make_norm(ratio * cin, norm),
                nn.GELU(),
                nn.Conv2d(ratio * cin, cout, 1),
                make_norm(cout, norm),
                nn.GELU(),
            )
        else:
            self.mix = Steps(nn.Conv2d(cin, cout, 1), make_norm(cout, norm))
        self.residual = cin == cout

    def forward(self, x: Tensor) -> Tensor:
        detailed = self.detail.plus(x, beside=x)
        mixed: Tensor = self.mix.plus(detailed, beside=x) if self.residual else self.mix(detailed)
        return mixed


class DeepSASE(nn.Module):
    """SASE where maps are small: few channels, and a chain of depthwise filters that see ever farther.

    Args:
        cout: output channels, a multiple of 16.
    """

    def __init__(self, cin: int, cout: int, norm: Norm) -> None:
        super().__init__()
        squeezed = cout // 8
        self.squeeze = Steps(nn.Conv2d(cin, squeezed, 1), make_norm(squeezed, norm))
        self.chain = nn.ModuleList(depthwise(squeezed // 2) for _ in range(7))
        self.widen = Steps(nn.Conv2d(cout // 2, cout, 1), make_norm(cout, norm))

    def forward(self, x: Tensor) -> Tensor:
        z = self.squeeze(x)
        even, odd = z[:, 0::2], z[:, 1::2]
        parts, link = [even + odd], odd
        for filter_ in self.chain:
            link = filter_(link)
            parts.append(link)
        out: Tensor = self.widen(torch.cat(parts, dim=1))
        return out


class Fusion(nn.Module):
    """Joins the skip and the map from below, each of d channels and concatenated in this order, into d.

    The grouped convolution filters the two halves apart; the activation comes before the norm.
    """

    def __init__(self, channels: int, norm: Norm, ratio: int) -> None:
        super().__init__()
        d = channels
        self.steps = Steps(
            nn.Conv2d(2 * d, 2 * d, 3, padding=1, groups=2),
            nn.GELU(),
            make_norm(2 * d, norm),
            nn.Conv2d(2 * d, ratio * d, 1),
            nn.GELU(),
            make_norm(ratio * d, norm),
            nn.Conv2d(ratio * d, d, 1),
            nn.GELU(),
            make_norm(d, norm),
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.steps(x)
        return out

    def join(self, skip: Tensor, x: Tensor, up: "Up") -> Tensor:
        """Of the skip and what the step up makes of x. The module itself is called with one, for hooks to see."""
        out: Tensor = self(up.after(x, skip))
        return out


class Up(nn.Module):
    """One step of the decoder's way up: twice the side by nearest neighbour, Conv3x3, Norm, GELU."""

    def __init__(self, cin: int, cout: int, norm: Norm) -> None:
        super().__init__()
        self.steps = Steps(Doubling(), *conv_norm_gelu(cin, cout, norm))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.steps(x)
        return out

    def after(self, x: Tensor, skip: Tensor) -> Tensor:
        """The channels of the skip and, after them, of the step's map: (B, 2 cout, H, W)."""
        return torch.cat([skip, self(x)], dim=1) if has_hooks(self) else self.steps.after(x, skip)
