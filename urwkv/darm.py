"""DARM, the direction-adaptive module: Bi-WKV over four scans with one set of weights, then channel mixing.

S(x) = x + g1 * SpatialMix(LN(x)), averaged over the scans; F(S) = S + g2 * ChannelMix(LN(S)). Since
S(x^T) = S(x)^T, the second direction of Dual-RWKV needs no second S: it is F of the transposed S.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from urwkv.leaves import PerSample, Scale
from urwkv.mixing import Mixing
from urwkv.ops import biwkv
from urwkv.scans import one_order, quad_scan, two_orders
from urwkv.shift import Shift

Dual = Literal["paper", "aligned", "off"]


class SpatialMix(Mixing):
    """Bi-WKV over the four scans of a map, averaged: (B, H, W, C) to (B, H, W, C).

    W_o has no bias and the scans share it, so it is applied once, to their average.
    """

    def __init__(self, channels: int, shift: Shift) -> None:
        super().__init__(shift, quad_scan)
        self.biwkv = biwkv  # tracing for another runtime puts a form of plain operations in its place
        share = torch.arange(channels) / channels
        ramp = torch.arange(channels) / (channels - 1)
        self.decay = PerSample(-5 + 8 * ramp**0.7)
        self.first = PerSample(math.log(0.3) + 0.5 * ((torch.arange(channels) + 1) % 3 - 1))
        self.mu_k = Scale(share)
        self.mu_v = Scale(share)
        self.mu_r = Scale(share**0.5)
        self.key = nn.Linear(channels, channels, bias=False)
        self.value = nn.Linear(channels, channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)
        self.norm = nn.LayerNorm(channels)
        self.output = nn.Linear(channels, channels, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        height, width = z.shape[1:3]
        x_k, x_v, x_r = self.mixed(z, self.mu_k, self.mu_v, self.mu_r)
        k, v, r = self.key(x_k), self.value(x_v), self.receptance(x_r)
        tokens = height * width
        y = self.normed(self.norm, self.biwkv(self.decay(z) / tokens, self.first(z) / tokens, k, v))
        out: Tensor = self.output(self.gated(r, y, height, width))
        return out


class ChannelMix(Mixing):
    """Mixes the channels of each token of a map, in one or both orders: (B, H, W, C) to (B, orders, T, C)."""

    def __init__(self, channels: int, shift: Shift, both_orders: bool, expansion: int = 4) -> None:
        super().__init__(shift, two_orders if both_orders else one_order)
        share = torch.arange(channels) / channels
        self.mu_k = Scale(share)
        self.mu_r = Scale(share)
        self.key = nn.Linear(channels, expansion * channels, bias=False)
        self.norm = nn.LayerNorm(expansion * channels)
        self.value = nn.Linear(expansion * channels, channels, bias=False)
        self.receptance = nn.Linear(channels, channels, bias=False)

    def forward(self, z: Tensor) -> Tensor:
        x_k, x_r = self.mixed(z, self.mu_k, self.mu_r)
        h = self.squared(self.norm, self.key(x_k))
        out: Tensor = torch.sigmoid(self.receptance(x_r)) * self.value(h)
        return out


class DARM(nn.Module):
    """The bottleneck, (B, C, H, W) to (B, C, H, W).

    Args:
        channels: C, a multiple of 4.
        dual: "off": F(S). "aligned": F(S) + F(S^T)^T. "paper": F(S) + F(S^T) as the authors' code computes it,
            the second term not transposed back: its tokens are added in the order they have.
        shift: see `shift_tokens`.
    """

    def __init__(self, channels: int, dual: Dual, shift: Shift) -> None:
        super().__init__()
        self.dual = dual
        self.norm_spatial = nn.LayerNorm(channels)
        self.spatial = SpatialMix(channels, shift)
        self.gamma_spatial = Scale(torch.ones(channels))
        self.norm_channel = nn.LayerNorm(channels)
        self.channel = ChannelMix(channels, shift, both_orders=dual != "off")
        self.gamma_channel = Scale(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        maps = x.permute(0, 2, 3, 1)
        s = maps + self.gamma_spatial(self.spatial(self.spatial.normed(self.norm_spatial, maps)))
        mixed = self.channel(self.channel.normed(self.norm_channel, s))
        f = self.channel.tokens(s) + self.gamma_channel(mixed)
        if self.dual == "aligned":
            turned = torch.unflatten(f[:, 1], 1, (width, height))
            out = torch.unflatten(f[:, 0], 1, (height, width)) + turned.transpose(1, 2)
        else:
            out = torch.unflatten(f.sum(1), 1, (height, width))
        return out.permute(0, 3, 1, 2)
