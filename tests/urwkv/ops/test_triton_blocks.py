"""Bi-WKV in Triton on a GPU: blocks whose programs wait for each other, and what the cache fetches ahead."""

import itertools

import pytest
import torch
from torch import Tensor

from tests.urwkv.ops.test_triton_scan import (
    NAMES,
    assert_near_reference,
    ends,
    inputs,
    on_gpu,
    poisoned,
    triton_backend,
    value_and_gradients,
)
from urwkv.ops.gpu import HAS_TRITON
from urwkv.ops.torch_scan import biwkv_scan

if HAS_TRITON:
    from urwkv.ops import triton_scan


def assert_alike(found: list[Tensor], expected: list[Tensor]) -> None:
    """But for the order of sums."""
    for name, mine, other in zip(NAMES, found, expected, strict=True):
        torch.testing.assert_close(mine, other, rtol=0, atol=3e-6 * other.abs().max().item(), msg=name)


def tiles_of(k: Tensor) -> list:
    tiles, shape = triton_scan.Tiles, k.shape[2:]
    return [tiles.forward(*shape), tiles.backward(*shape)]


def blocks_that_wait() -> list[int]:
    """Of the longest sequence that one kernel computes, forward and backward."""
    multiprocessors = torch.cuda.get_device_properties(0).multi_processor_count
    return [
        multiprocessors * (triton_scan.REGISTERS // tiles.most_registers) // triton_scan.CROWD
        for tiles in tiles_of(torch.empty(1, 1, 512, 256))
    ]


@pytest.mark.gpu
@ends
@pytest.mark.parametrize("tokens", [300, 2048])
def test_blocks_that_wait_for_each_other_find_what_two_kernels_find(monkeypatch, tokens):
    poisoned(monkeypatch)
    tensors = on_gpu(inputs(tokens, 10.0, 3.0, scans=4, channels=33))
    assert all(triton_scan._waits(tensors[2], tiles) for tiles in tiles_of(tensors[2]))
    waited = value_and_gradients(triton_backend, *tensors)
    monkeypatch.setattr(triton_scan, "CROWD", 10**6)
    assert not any(triton_scan._waits(tensors[2], tiles) for tiles in tiles_of(tensors[2]))
    assert_alike(waited, value_and_gradients(triton_backend, *tensors))


@pytest.mark.gpu
@ends
def test_sequences_may_have_more_blocks_than_can_wait(monkeypatch):
    poisoned(monkeypatch)
    tensors = on_gpu(inputs(256 * max(blocks_that_wait()) + 1, 80.0, 3.0, channels=17))
    assert not any(triton_scan._waits(tensors[2], tiles) for tiles in tiles_of(tensors[2]))
    assert_near_reference(
        triton_backend, tensors, 1e-4, lambda w, u, k, v: biwkv_scan(w[:, None, None], u[:, None, None], k, v)
    )


@pytest.mark.gpu
@ends
@pytest.mark.parametrize("scans", [1, 4])
def test_gradients_may_be_asked_for_again(scans):
    w, u, k, v, dy = on_gpu(inputs(2048, 10.0, 3.0, scans=scans, channels=33))
    leaves = [tensor.requires_grad_() for tensor in (w, u, k, v)]
    y = triton_backend(*leaves)
    once, doubled, again = (torch.autograd.grad(y, leaves, each, retain_graph=True) for each in (dy, 2 * dy, dy))
    for first, twice, third in zip(once, doubled, again, strict=True):
        assert torch.equal(first, third)
        assert torch.equal(2 * first, twice)


@pytest.mark.gpu
@ends
def test_sums_that_are_zero_are_waited_for_no_longer():
    """Zeros stand for what programs have yet to store."""
    w, u, k, v, dy = inputs(2048, 10.0, 3.0, scans=4, channels=8)
    k[..., 0], v[..., 1], dy[..., 2] = 0, 0, 0
    assert_near_reference(triton_backend, on_gpu([w, u, k, v, dy]), 1e-5)


@pytest.mark.gpu
@ends
def test_what_is_no_number_is_waited_for_no_longer():
    w, u, k, v, dy = on_gpu(inputs(2048, 10.0, 3.0, channels=8))
    plain = value_and_gradients(triton_backend, w, u, k, v, dy)
    for x, bits in itertools.product((k, v, dy), (-1, 0x7FC00000)):
        spoilt = x.clone()
        spoilt[0, 0, 700, 3] = torch.tensor(bits, dtype=torch.int32, device="cuda").view(torch.float32)
        found = value_and_gradients(
            triton_backend, *(spoilt if tensor is x else tensor for tensor in (w, u, k, v, dy))
        )
        assert any(tensor.isnan().any() for tensor in found)
        for mine, other in zip(found, plain, strict=True):
            assert torch.equal(mine[1], other[1])


@pytest.mark.gpu
@ends
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_as_many_kernels_that_wait_as_may_run_side_by_side(dtype):
    w, u, *others = on_gpu(inputs(256 * min(blocks_that_wait()), 10.0, 3.0, batch=8, channels=256))
    tensors = [w, u, *(tensor.to(dtype) for tensor in others)]
    assert all(triton_scan._waits(tensors[2], tiles) for tiles in tiles_of(tensors[2]))
    expected = value_and_gradients(triton_backend, *tensors)
    torch.cuda.synchronize()
    gate = torch.cuda.Stream()
    with torch.cuda.stream(gate):
        torch.cuda._sleep(10**9)  # half a second, in which all are launched
    found = []
    for _ in range(triton_scan.CROWD):
        stream = torch.cuda.Stream()
        stream.wait_stream(gate)
        with torch.cuda.stream(stream):
            found += [value_and_gradients(triton_backend, *tensors) for _ in range(3)]
    torch.cuda.synchronize()
    for each in found:
        assert all(torch.equal(mine, one) for mine, one in zip(each, expected, strict=True))


def samples_ahead(k: Tensor, v: Tensor | None = None) -> int:
    tokens, channels = k.shape[2:]
    words = triton_scan.Tiles.forward(tokens, channels).words(tokens, channels)
    return triton_scan._samples_ahead(words, k, k if v is None else v)


fetching = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (9, 0), reason="the cache fetches nothing"
)


@pytest.mark.gpu
@fetching
@pytest.mark.parametrize("tokens", [16, 256, 512])
def test_what_the_cache_fetches_changes_nothing(monkeypatch, tokens):
    poisoned(monkeypatch)
    w, u, k, v, dy = on_gpu(inputs(tokens, 10.0, 3.0, batch=5, scans=4, channels=32))
    plain = value_and_gradients(triton_backend, w, u, k, v, dy)
    alone = value_and_gradients(triton_backend, *(tensor[1:2] for tensor in (w, u, k, v, dy)))
    assert samples_ahead(k, v) == 0  # all five have their programs run at a time
    monkeypatch.setattr(triton_scan, "AHEAD", 1)
    assert samples_ahead(k, v) == 1
    apart = [torch.stack([x, x * torch.nan], 2)[:, :, 0] for x in (k, v)]
    assert samples_ahead(*apart) == 1
    for one, other in ((k, v), apart):
        found = value_and_gradients(triton_backend, w, u, one, other, dy)
        for mine, expected, single in zip(found, plain, alone, strict=True):
            assert torch.equal(mine, expected)
            assert torch.equal(mine[1:2], single)


@pytest.mark.gpu
@fetching
def test_two_kernels_fetch_ahead_too(monkeypatch):
    w, u, k, v, dy = on_gpu(inputs(512, 10.0, 3.0, batch=5, scans=4, channels=32))
    plain = value_and_gradients(triton_backend, w, u, k, v, dy)
    monkeypatch.setattr(triton_scan, "CROWD", 10**6)
    monkeypatch.setattr(triton_scan, "AHEAD", 1)
    assert samples_ahead(k, v) == 1
    assert not any(triton_scan._waits(k, tiles) for tiles in tiles_of(k))
    assert_alike(value_and_gradients(triton_backend, w, u, k, v, dy), plain)


@pytest.mark.gpu
@fetching
def test_the_cache_fetches_whole_rows_of_aligned_tensors():
    k = torch.empty(64, 4, 256, 256, device="cuda")
    assert [samples_ahead(x) for x in (k, k.bfloat16(), k[:4], k[:5], k[:, ::2])] == [4, 4, 0, 4, 8]
    long, longer = torch.empty(8, 1, 4096, 256, device="cuda"), torch.empty(8, 4, 4096, 256, device="cuda")
    assert [samples_ahead(long), samples_ahead(longer)] == [1, 0]
    for tokens, channels in ((300, 256), (256, 33), (256, 96)):
        assert samples_ahead(torch.empty(64, 4, tokens, channels, device="cuda")) == 0
    assert samples_ahead(k.transpose(2, 3)) == 0
    assert samples_ahead(k[:0]) == 0
    flat = k.flatten()
    assert samples_ahead(k[:63], flat[1 : 1 + k[:63].numel()].view(63, 4, 256, 256)) == 0
    assert samples_ahead(flat.as_strided((60, 4, 256, 256), (262145, 65536, 256, 1))) == 0
