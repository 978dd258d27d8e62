"""Bi-WKV in operations that every exchange format has: the forward of `torch_scan`, for tracing.

In the letters of `urwkv.ops.torch_scan`, with one cumulative sum a direction and no operation in place. All
tokens weigh in D, the largest x is 1, and exp(i w) swings by |decay| = |w| T, so what underflows in float32 is
unseen while |decay| and |first| = |u| T stay below `FLOAT32_REACH`; the keys may be any.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT32_REACH = 40.0
"""The largest |decay| and |first| for sums in float32: exp(-1.5 * 40) times 1e-7 is still a number there."""


def biwkv_plain(w: Tensor, u: Tensor, k: Tensor, v: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """Bi-WKV of keys with an axis of scans, for a number of tokens that need not be known while tracing.

    Args:
        w, u: decay and bonus, (B, C).
        k, v: keys and values, (B, scans, T, C).
        dtype: of the sums; float64 where |w| T or |u| T passes `FLOAT32_REACH`.

    Returns:
        (B, scans, T, C) in the dtype of `v`.
    """
    w, u, keys, values = w[:, None, None].to(dtype), u[:, None, None].to(dtype), k.to(dtype), v.to(dtype)
    tokens = k.shape[-2]
    centre = (tokens - 1) / 2  # halves the largest exponent
    exponent = (torch.arange(tokens, device=k.device, dtype=dtype)[:, None] - centre) * w
    weigh, weigh_back = torch.exp(exponent), torch.exp(w - exponent)

    def before(x: Tensor) -> Tensor:
        upto = (x * weigh).cumsum(dim=-2)
        return F.pad(upto[..., :-1, :], (0, 0, 1, 0)) * weigh_back  # nothing is before the first token

    x = torch.exp(keys - keys.amax(dim=-2, keepdim=True))
    xs = torch.stack([x * values, x])
    both = before(xs) + before(xs.flip(-2)).flip(-2)
    own = torch.exp(u) * x
    return ((both[0] + own * values) / (both[1] + own)).to(v.dtype)
