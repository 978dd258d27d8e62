"""The one door to Bi-WKV: checks the shapes and picks a backend.

Autocast changes nothing inside: no backend uses an operation that it narrows.
"""

import torch
from torch import Tensor

from urwkv.ops.gpu import HAS_TRITON
from urwkv.ops.reference import biwkv_reference
from urwkv.ops.torch_scan import biwkv_scan

BACKENDS = ("auto", "reference", "torch", "triton")

if HAS_TRITON:
    from urwkv.ops.triton_scan import biwkv_triton


def biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor, backend: str = "auto") -> Tensor:
    """Bidirectional weighted average of values, per channel (Vision-RWKV, arXiv 2403.02308, equation 2).

    y_t = ( sum_{i != t} exp(-(|t-i| - 1) w + k_i) v_i + exp(u + k_t) v_t ) / ( the same with v = 1 )

    Args:
        w: decay a token, (C,) or (B, C); may be negative. The network passes decay / T.
        u: bonus of a token for itself, (C,) or (B, C). The network passes first / T.
        k: keys, (..., T, C), T >= 1; (B, ..., T, C) when w or u is (B, C).
        v: values, of the shape of `k`.
        backend: "reference" (the direct O(T^2) sum), "torch" (linear in T), "triton" (linear in T, a kernel for
            GPUs), or "auto": "triton" where it can compute these tensors, else "torch".

    Returns:
        (..., T, C) in the dtype of `v`. Inside, at least float32, also under autocast. Gradients reach all
        four tensors, each in its own shape: a (B, C) decay gets one gradient a sample.

    Raises:
        ValueError: the backend is unknown or cannot compute these tensors, or the shapes do not fit.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend = {backend!r} is not one of: {', '.join(BACKENDS)}")
    if k.shape != v.shape or k.ndim < 2 or k.shape[-2] < 1:
        raise ValueError(f"biwkv: k {tuple(k.shape)} and v {tuple(v.shape)} must have one shape (..., T, C), T >= 1")
    w, u = _beside("w", w, k), _beside("u", u, k)
    if backend == "reference":
        wide = torch.float64 if torch.float64 in (w.dtype, u.dtype, k.dtype, v.dtype) else torch.float32
        return biwkv_reference(w.to(wide), u.to(wide), k.to(wide), v.to(wide)).to(v.dtype)
    obstacle = _obstacle(w, u, k, v)
    if backend == "triton" and obstacle:
        raise ValueError(f"biwkv: backend = 'triton' {obstacle}; use auto or torch")
    if backend == "torch" or obstacle:
        return biwkv_scan(w, u, k, v)
    return biwkv_triton(w, u, k, v)


def _obstacle(*tensors: Tensor) -> str:
    """Why the Triton backend cannot compute these tensors; empty where it can."""
    if not HAS_TRITON:
        return "needs the package triton, which is not installed"
    for tensor in tensors:
        if tensor.device.type != "cuda":
            return f"needs tensors on a GPU, not on {tensor.device}"
        if tensor.dtype == torch.float64:
            return "computes in float32, and there is a float64 tensor"
    return ""


def _beside(name: str, vector: Tensor, k: Tensor) -> Tensor:
    """A (C,) or (B, C) tensor as a view (1, ..., 1, C) or (B, 1, ..., 1, C) that broadcasts against `k`."""
    channels, middle = k.shape[-1], [1] * (k.ndim - 2)
    if vector.shape == (channels,):
        return vector.view(1, *middle, channels)
    if k.ndim > 2 and vector.shape == (k.shape[0], channels):
        return vector.view(k.shape[0], *middle, channels)
    raise ValueError(
        f"biwkv: {name} {tuple(vector.shape)} must be (C,) or (B, C) beside k {tuple(k.shape)} = (B, ..., T, C)"
    )
