"""Bi-WKV as it is defined: every token against every other. Slow, and obviously right."""

import torch
from torch import Tensor


def biwkv_reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The direct sum, differentiated by autograd; O(T^2) time and memory.

    y_t = sum_i p_ti v_i, where p_t is the softmax over i of -(|t-i| - 1) w + k_i, and of u + k_t at i = t.

    Args:
        w, u: decay and bonus, of a shape that broadcasts against `k`.
        k, v: keys and values, (..., T, C). All four have one floating dtype, which is kept.
    """
    position = torch.arange(k.shape[-2], device=k.device)
    distance = (position[:, None] - position).abs()[..., None]  # (T, T, 1): token t, token i
    others = k.unsqueeze(-3) - (distance - 1) * w.expand_as(k).unsqueeze(-3)
    itself = (k + u).unsqueeze(-3)
    weights = torch.where(distance == 0, itself, others).softmax(dim=-2)
    return (weights * v.unsqueeze(-3)).sum(dim=-2)
