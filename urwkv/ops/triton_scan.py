"""Bi-WKV on a GPU, as an operator that torch.compile, CUDA graphs and autograd know: `fedurwkv::biwkv`.

Importing this needs Triton. Everything inside is float32; the order of every sum is fixed, so results repeat.
"""

from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from urwkv.ops import triton_kernels as kernels
from urwkv.ops.triton_blocks import PARTS
from urwkv.ops.triton_math import INTERPRETED

AHEAD = 128
"""How many programs before it is read the cache fetches what a program reads. Of T up to 256 and of backward some 260
run at a time on an H200."""

CACHE = 16 * 2**20
"""Bytes that are fetched but not yet read, at most: half of what an H200's second-level cache surely holds."""

CROWD = 16
"""How many kernels whose programs wait for each other may run on a GPU at a time, in whatever streams."""

REGISTERS = 2**16
"""Of a multiprocessor, on every GPU that Triton compiles for."""

HAS_FETCH = (9, 0)
"""The compute capability from which a GPU's cache fetches what it is told to."""


@dataclass(frozen=True)
class Tiles:
    """How a launch cuts its work: tokens a chunk, chunks a block, channels a program, and the most registers that a
    thread may have (None: what the compiler likes).

    A thread holds all tokens of one chunk for one channel. Neighbouring channels fill a sector of memory, 32 bytes.
    """

    tokens: int
    chunks: int
    channels: int
    registers: int | None = None

    @classmethod
    def forward(cls, tokens: int, channels: int) -> "Tiles":
        """The cut for the sums of x and for y: of fewer channels where a sequence is longer than a block."""
        chunk, chunks = cls._chunks(tokens)
        width = max(8, min(32 if tokens <= 256 else 16, 256 // chunks, triton.next_power_of_2(channels)))
        return cls(chunk, chunks, width, 128)

    @classmethod
    def backward(cls, tokens: int, channels: int) -> "Tiles":
        """The cut for the gradients: of fewer channels, since more is held of each token."""
        chunk, chunks = cls._chunks(tokens)
        width = max(8, min(128 // chunks, triton.next_power_of_2(channels)))
        return cls(chunk, chunks, width, 255)

    @staticmethod
    def _chunks(tokens: int) -> tuple[int, int]:
        """Tokens a chunk and chunks a block: 256 tokens a block, or all there are.

        A chunk is at most an eighth of its sequence: within it, weights are float32 around one exponent, and swing
        by that share of |decay|, which comes twice where a chunk passes on what another has summed.
        """
        chunk = 1 << (min(32, max(1, tokens // 8)).bit_length() - 1)
        return chunk, 8 if chunk == 32 or tokens <= 8 * chunk else 16

    @property
    def warps(self) -> int:
        return self.chunks * self.channels // 32

    @property
    def most_registers(self) -> int:
        """Of a program, all threads together."""
        return (self.registers or 255) * self.warps * 32

    def blocks(self, tokens: int) -> int:
        return -(-tokens // (self.tokens * self.chunks))

    def words(self, tokens: int, channels: int) -> dict[str, Any]:
        """The kernels' compile-time arguments that all of them have.

        Raises:
            ValueError: the cut does not give each thread of whole warps one number of a tensor (chunks, channels).
        """
        if not self.warps or self.warps * 32 != self.chunks * self.channels:
            raise ValueError(f"{self} does not fill whole warps: chunks times channels are no multiple of 32")
        return {
            "CHANNELS": triton.cdiv(channels, self.channels),
            "BLOCKS": self.blocks(tokens),
            "BLOCK": self.channels,
            "CHUNKS": self.chunks,
            "L": self.tokens,
            "EVEN": tokens % (self.tokens * self.chunks) == 0 and channels % self.channels == 0,
            "num_warps": self.warps,
            "maxnreg": self.registers,
        }


def _waits(k: Tensor, tiles: Tiles) -> bool:
    """Whether programs wait for those of their sequence's other blocks, so that one kernel does.

    A GPU starts programs in their order, so of a kernel's only those of one sequence, fewer than its blocks, can wait
    for some that have not started. As long as CROWD such kernels leave a place free, others start, and the wait ends.
    """
    blocks = tiles.blocks(k.shape[2])
    if k.device.type != "cuda" or INTERPRETED.value or blocks == 1:
        return False
    places = torch.cuda.get_device_properties(k.device).multi_processor_count * (REGISTERS // tiles.most_registers)
    return blocks * CROWD <= places


def _samples_ahead(words: dict[str, Any], *read: Tensor) -> int:
    """How many samples ahead, some AHEAD programs, the cache fetches what is read, (B, S, T, C) each; 0 where it
    does not. It fetches whole rows, each program an equal share of a block's.
    """
    k = read[0]
    if k.device.type != "cuda" or torch.cuda.get_device_capability(k.device) < HAS_FETCH or not k.numel():
        return 0
    if not words["EVEN"] or words["CHUNKS"] * words["L"] % words["CHANNELS"]:
        return 0
    batch, scans, _, channels = k.shape
    for x in read:
        steps = (x.data_ptr(), *(stride * x.element_size() for stride in (*x.stride()[:2], channels)))
        if x.stride()[2:] != (channels, 1) or any(step % 16 for step in steps):
            return 0
    sample = sum(x[0].numel() * x.element_size() for x in read)
    ahead = max(1, round(AHEAD / (scans * words["BLOCKS"] * words["CHANNELS"])))
    ahead = min(ahead, CACHE // sample)
    return ahead if ahead < batch else 0


@torch.library.custom_op("fedurwkv::biwkv", mutates_args=())
def _biwkv(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """y, and what reaches each block, (B S, blocks, 2, C, 4) float32, empty where a sequence is one block."""
    batch, scans, tokens, channels = k.shape
    y, carries = _empty_results(k, v)
    tiles = Tiles.forward(tokens, channels)
    words, wait = tiles.words(tokens, channels), _waits(k, tiles)
    grid, ahead = (words["BLOCKS"] * words["CHANNELS"], scans, batch), _samples_ahead(words, k, v)
    sums = torch.zeros_like(carries) if wait else torch.empty_like(carries)
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]  # where Triton launches
        if words["BLOCKS"] > 1 and not wait:
            kernels.summarise[grid](
                w, k, v, sums, tokens, *_strides(w), *k.stride()[:2], *v.stride()[:2],
                *k.stride()[2:], *v.stride()[2:], channels, **words,
            )  # fmt: skip
        kernels.forward[grid](
            w, u, k, v, y, sums, carries, tokens, ahead,
            *_strides(w), *_strides(u), *k.stride()[:2], *v.stride()[:2], *k.stride()[2:], *v.stride()[2:], channels,
            **words, WAIT=wait, FETCH=ahead > 0,
        )  # fmt: skip
    return y, carries


def _empty_results(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    batch, scans, tokens, channels = k.shape
    blocks = Tiles.forward(tokens, channels).blocks(tokens)
    kept = (batch * scans, blocks, 2, channels, PARTS.value) if blocks > 1 else (0,)
    return torch.empty(k.shape, dtype=v.dtype, device=v.device), torch.empty(
        kept, dtype=torch.float32, device=k.device
    )


def _zeros(carries: Tensor, k: Tensor, blocks: int) -> tuple[Tensor, Tensor]:
    """Zeros, of one launch: for the blocks' own sums, as `carries`; and for the shares of scans and blocks in dw and
    du, (B, S, blocks, C, 2), none where there is one.
    """
    batch, scans, _, channels = k.shape
    shares = batch * scans * blocks * channels * 2 if scans * blocks > 1 else 0
    zeros = torch.zeros(carries.numel() + shares, dtype=torch.float32, device=k.device)
    return zeros[: carries.numel()], zeros[carries.numel() :]


@_biwkv.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return _empty_results(k, v)


@torch.library.custom_op("fedurwkv::biwkv_backward", mutates_args=())
def _biwkv_backward(
    w: Tensor, u: Tensor, k: Tensor, v: Tensor, carries: Tensor, dy: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """dk, dv, and dw and du, (2, B, C) float32."""
    batch, scans, tokens, channels = k.shape
    dk, dv, dwu = _empty_gradients(k, v)
    tiles = Tiles.backward(tokens, channels)
    words, wait = tiles.words(tokens, channels), _waits(k, tiles)
    grid, sums, shares = (words["BLOCKS"] * words["CHANNELS"], scans, batch), *_zeros(carries, k, words["BLOCKS"])
    ahead = _samples_ahead(words, k, v, dy)
    with torch.cuda.device_of(k):  # type: ignore[no-untyped-call]
        for last in (False, True) if words["BLOCKS"] > 1 and not wait else (True,):
            kernels.backward[grid](
                w, u, k, v, dy, dk, dv, dwu, carries, sums, shares, tokens, ahead,
                *_strides(w), *_strides(u), *k.stride()[:2], *v.stride()[:2], *dy.stride()[:2],
                *k.stride()[2:], *v.stride()[2:], *dy.stride()[2:], channels, last, **words, WAIT=wait,
                ALONE=not shares.numel(), FETCH=last and ahead > 0,
            )  # fmt: skip
    return dk, dv, dwu


def _empty_gradients(k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    batch, _, _, channels = k.shape
    return (
        torch.empty(k.shape, dtype=k.dtype, device=k.device),
        torch.empty(v.shape, dtype=v.dtype, device=v.device),
        torch.empty(2, batch, channels, dtype=torch.float32, device=k.device),
    )


@_biwkv_backward.register_fake
def _(w: Tensor, u: Tensor, k: Tensor, v: Tensor, carries: Tensor, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return _empty_gradients(k, v)


def _strides(vector: Tensor) -> tuple[int, int]:
    """Strides by sample and channel of w or u, (1 or B, C)."""
    return 0 if vector.shape[0] == 1 else vector.stride(0), vector.stride(1)


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs, output[1])
    ctx.mark_non_differentiable(output[1])


def _differentiate(ctx: Any, dy: Tensor, _: Tensor) -> tuple[Tensor, ...]:
    w, u, k, v, carries = ctx.saved_tensors
    dk, dv, dwu = _biwkv_backward(w, u, k, v, carries, dy)
    dw, du = (grad.sum_to_size(vector.shape).to(vector.dtype) for grad, vector in zip(dwu, (w, u), strict=True))
    return dw, du, dk, dv


_biwkv.register_autograd(_differentiate, setup_context=_keep)


def biwkv_triton(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Bi-WKV for T up to 256 in one kernel; beyond in one whose programs wait for each other, up to some 64 tokens a
    multiprocessor, backward 32, else in two. Once differentiable. No more than CROWD may run on a GPU at a time.

    Exact in float32 for |decay| = |w| T up to 200, |u| up to 40 and any keys; but dw, where weights grow with the
    distance as fast as that, to 1e-3, and where it is 0, one key outweighing all others, to some 1e-3 at T = 300.

    Args:
        w, u: decay and bonus, (1 or B, 1, ..., 1, C); any floating dtype but float64.
        k, v: keys and values, (B, ..., T, C), of any strides; any floating dtype but float64.

    Returns:
        (B, ..., T, C), contiguous, in the dtype of `v`.
    """
    shape = k.shape
    k4, v4 = (tensor.reshape(shape[0] if k.ndim > 2 else 1, -1, *shape[-2:]) for tensor in (k, v))
    w2, u2 = (vector.reshape(vector.shape[0] if k.ndim > 2 else 1, -1) for vector in (w, u))
    y: Tensor = _biwkv(w2, u2, k4, v4)[0]
    return y.view(shape)
