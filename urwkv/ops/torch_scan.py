"""Bi-WKV in plain torch: exact, linear in T, no loop over tokens, backward by the same sums as forward.

For a sequence x let

    before(x)_t = sum_{i<t} exp(-(t-1-i) w) x_i        after(x)_t = sum_{i>t} exp(-(i-1-t) w) x_i

and both = before + after. With x = exp(k - max k), D = both(x) + exp(u) x and o = exp(u) x / D, a token's
own share of its average,

    y = both(x v) / D + o v.

The sums are each other's transposes, so with g = dL/dy / D and h = -g y,

    dv = x both(g) + o dL/dy        du = sum_t o (v - y) dL/dy        dk = x (v both(g) + both(h)) + o (v - y) dL/dy.

The derivative of exp(-(t-1-i) w) by w brings down t-1-i, the number of tokens between i and t. Counting each
pair once at every token between them turns that into products of one-sided sums, with nothing to cancel:

    dw = -exp(-w) sum_s [ before(x v) after(g) + before(x) after(h) + after(x v) before(g) + after(x) before(h) ]_s.

A one-sided sum is a cumulative sum of exp(i w) x_i, scaled back. In float64 that loses nothing: exp(i w)
swings by no more than |decay| = |w| T, and the largest x is 1 and lies within |decay| of every token, so D
stays above exp(-|decay|), and an x that underflows is too small to be seen beside it.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def biwkv_scan(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Bi-WKV in float64, for |w| T up to 200 and any keys; once differentiable.

    Args:
        w, u: decay and bonus, of a shape that broadcasts against `k`; any floating dtype.
        k, v: keys and values, (..., T, C); any floating dtype. What backward keeps are these four.

    Returns:
        (..., T, C) in the dtype of `v`.
    """
    y: Tensor = _BiWKV.apply(w, u, k, v)  # type: ignore[no-untyped-call]
    return y


class _BiWKV(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
        ctx.save_for_backward(w, u, k, v)
        sums = _OneSided(w.double(), k.shape[-2])
        x, values = _exp_keys(k), v.double()
        both_xs = sums.both(torch.stack([x * values, x]))
        own = torch.exp(u.double()) * x
        d = both_xs[1] + own
        return (both_xs[0] / d + own / d * values).to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, ...]:
        w, u, k, v = ctx.saved_tensors
        sums = _OneSided(w.double(), k.shape[-2])
        x, values, dy = _exp_keys(k), v.double(), dy.double()

        xs = torch.stack([x * values, x])
        xs_before, xs_after = sums.before(xs), sums.after(xs)
        own = torch.exp(u.double()) * x
        d = xs_before[1] + xs_after[1] + own
        share = own / d
        y = (xs_before[0] + xs_after[0]) / d + share * values

        g = dy / d
        gh = torch.stack([g, -g * y])
        gh_before, gh_after = sums.before(gh), sums.after(gh)
        both_gh = gh_before + gh_after

        dv = x * both_gh[0] + share * dy
        du = share * (values - y) * dy
        dk = x * (values * both_gh[0] + both_gh[1]) + du
        dw = (xs_before * gh_after + xs_after * gh_before).sum(0) * -torch.exp(-w.double())
        return (_like(w, dw), _like(u, du), _like(k, dk), _like(v, dv))


class _OneSided:
    """before() and after() for one decay w, float64, broadcasting against what they are given."""

    def __init__(self, w: Tensor, tokens: int) -> None:
        centre = (tokens - 1) / 2  # halves the largest exponent
        exponent = (torch.arange(tokens, device=w.device)[:, None] - centre) * w
        self.weigh, self.weigh_back = torch.exp(exponent), torch.exp(w - exponent)

    def before(self, x: Tensor) -> Tensor:
        upto = (x * self.weigh).cumsum_(dim=-2)
        sums = torch.empty_like(upto)
        sums[..., :1, :] = 0  # nothing is before the first token
        torch.mul(upto[..., :-1, :], self.weigh_back[..., 1:, :], out=sums[..., 1:, :])
        return sums

    def after(self, x: Tensor) -> Tensor:
        return self.before(x.flip(-2)).flip(-2)

    def both(self, x: Tensor) -> Tensor:
        return self.before(x) + self.after(x)


def _exp_keys(k: Tensor) -> Tensor:
    k = k.double()
    return torch.exp(k - k.amax(dim=-2, keepdim=True))


def _like(tensor: Tensor, grad: Tensor) -> Tensor:
    return grad.sum_to_size(tensor.shape).to(tensor.dtype)
