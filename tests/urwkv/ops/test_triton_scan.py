"""Bi-WKV in Triton: its numbers on a GPU, or in Triton's interpreter; and that it compiles where there is no GPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from urwkv.ops import biwkv
from urwkv.ops.reference import biwkv_reference

HERE = Path(__file__).resolve()
NAMES = ("y", "dw", "du", "dk", "dv")

ends = pytest.mark.timeout(120, method="thread")  # the only one that ends a process which waits for a GPU
needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs the package triton")


def inputs(
    tokens: int, decay: float, spread: float, batch: int = 2, scans: int = 1, channels: int = 4
) -> list[Tensor]:
    """w, u, k, v and dL/dy in float32; the channels' decays go evenly from -decay to decay."""
    torch.manual_seed(tokens)
    w = torch.linspace(-decay, decay, channels).expand(batch, channels) / tokens
    u = torch.randn(batch, channels) / tokens
    k, v, dy = (torch.randn(batch, scans, tokens, channels) for _ in range(3))
    return [w, u, k * spread, v, dy]


def with_two_keys_above_all(tokens: int) -> list[Tensor]:
    """In different blocks, near each other and 1e5 above the others."""
    w, u, k, v, dy = inputs(tokens, 10.0, 1.0)
    k[:, :, 10], k[:, :, tokens - 20] = 1e5, 1e5 + 0.25
    return [w, u, k, v, dy]


def value_and_gradients(operator, w, u, k, v, dy) -> list[Tensor]:
    leaves = [tensor.detach().requires_grad_() for tensor in (w, u, k, v)]
    y = operator(*leaves)
    return [y.detach(), *torch.autograd.grad(y, leaves, dy)]


def reference(w: Tensor, u: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return biwkv_reference(w[:, None, None], u[:, None, None], k, v)


def assert_near_reference(operator, tensors: list[Tensor], relative: float, exactly=reference) -> None:
    """Within `relative` of the largest exact number; numbers that all but cancel are float32 beside 1."""
    found = value_and_gradients(operator, *tensors)
    expected = value_and_gradients(exactly, *(tensor.double() for tensor in tensors))
    for name, mine, exact in zip(NAMES, found, expected, strict=True):
        assert mine.shape == exact.shape
        error = (mine.double() - exact).abs().max().item()
        assert error <= relative * max(exact.abs().max().item(), 0.1), (
            f"{name}: {error}"
        )  # also where it is not a number


def poisoned(monkeypatch) -> None:
    """Has `torch.empty` give tensors full of what is not a number."""
    empty = torch.empty

    def full_of_nan(*size, **options) -> Tensor:
        made = empty(*size, **options)
        return made.fill_(float("nan")) if made.is_floating_point() else made

    monkeypatch.setattr(torch, "empty", full_of_nan)
    monkeypatch.setattr(
        torch,
        "empty_like",
        lambda like, **form: full_of_nan(like.shape, dtype=like.dtype, device=like.device, **form),
    )


# ---- on a GPU


def on_gpu(tensors: list[Tensor]) -> list[Tensor]:
    return [tensor.cuda() for tensor in tensors]


def triton_backend(w, u, k, v) -> Tensor:
    return biwkv(w, u, k, v, backend="triton")


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 2, 3, 17, 64, 255, 256, 257, 1024])
@pytest.mark.parametrize(("decay", "spread", "relative"), [(10.0, 1.0, 1e-5), (10.0, 3.0, 1e-5), (80.0, 50.0, 1e-4)])
def test_equals_the_reference(monkeypatch, tokens, decay, spread, relative):
    poisoned(monkeypatch)
    assert_near_reference(triton_backend, on_gpu(inputs(tokens, decay, spread)), relative)


@pytest.mark.gpu
@pytest.mark.parametrize("channels", [1, 7, 16, 33])
@pytest.mark.parametrize("tokens", [100, 256, 300])
def test_any_number_of_channels(monkeypatch, tokens, channels):
    poisoned(monkeypatch)
    tensors = inputs(tokens, 10.0, 3.0, scans=4, channels=channels)
    assert_near_reference(triton_backend, on_gpu(tensors), 1e-5)


@pytest.mark.gpu
@ends
@pytest.mark.parametrize("sign", [-1, 1])
def test_equals_the_reference_on_long_sequences(monkeypatch, sign):
    poisoned(monkeypatch)
    w, *others = inputs(4096, 80.0, 50.0, batch=1, channels=2)
    assert_near_reference(triton_backend, on_gpu([w.abs() * sign, *others]), 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("offset", [-1e4, 1e4])
def test_keys_may_be_far_from_zero_and_from_each_other(offset):
    w, u, k, v, dy = inputs(300, 80.0, 50.0)
    k = k + offset
    k[0, :, 20] += 2000
    assert_near_reference(triton_backend, on_gpu([w, u, k, v, dy]), 1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("offset", [1e4, -1e6, 1e10])
@pytest.mark.parametrize("tokens", [40, 256, 300])
def test_keys_far_from_zero_weigh_as_near_it(tokens, offset):
    w, u, k, v, dy = inputs(tokens, 10.0, 3.0)
    assert_near_reference(triton_backend, on_gpu([w, u, k + offset, v, dy]), 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [300, 800])
def test_keys_may_be_far_above_those_of_other_blocks(tokens):
    assert_near_reference(triton_backend, on_gpu(with_two_keys_above_all(tokens)), 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [1, 2, 3, 9, 33, 65, 129, 257])
def test_weights_may_shrink_and_grow_by_200(monkeypatch, tokens):
    poisoned(monkeypatch)
    assert_near_reference(triton_backend, on_gpu(inputs(tokens, 200.0, 3.0)), 1e-3)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [100, 256, 300])
@pytest.mark.parametrize(("dtype", "step"), [(torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_narrow_numbers_are_widened_inside(monkeypatch, tokens, dtype, step):
    poisoned(monkeypatch)
    w, u, *others = on_gpu(inputs(tokens, 10.0, 3.0, channels=32))
    tensors = [w, u, *(tensor.to(dtype) for tensor in others)]
    found = value_and_gradients(triton_backend, *tensors)
    expected = value_and_gradients(triton_backend, *(tensor.float() for tensor in tensors))
    assert [tensor.dtype for tensor in found] == [dtype] + [torch.float32] * 2 + [dtype] * 2
    for name, mine, exact in zip(NAMES, found, expected, strict=True):
        rounding = step * exact.abs() if mine.dtype == dtype else 0.0  # the compiler may contract sums otherwise
        assert ((mine.float() - exact).abs() <= rounding + 3e-6 * exact.abs().max()).all(), name


@pytest.mark.gpu
def test_one_token_is_its_value_and_no_gradient_reaches_the_rest():
    tensors = on_gpu(inputs(1, 10.0, 3.0))
    y, dw, du, dk, dv = value_and_gradients(triton_backend, *tensors)
    torch.testing.assert_close(y, tensors[3])
    assert not dw.any()
    assert not du.any()
    assert not dk.any()
    torch.testing.assert_close(dv, tensors[4])


@pytest.mark.gpu
def test_strides_are_followed_without_a_copy():
    w, u, k, v, dy = on_gpu(inputs(300, 10.0, 3.0, scans=4, channels=9))
    plain = value_and_gradients(triton_backend, w, u, k, v, dy)
    turned = [t.transpose(1, 3).contiguous().transpose(1, 3) for t in (k, v, dy)]
    assert not any(tensor.is_contiguous() for tensor in turned)
    for mine, expected in zip(value_and_gradients(triton_backend, w, u, *turned), plain, strict=True):
        # Triton lays threads out by the strides, and its compiler rounds some products and not others
        torch.testing.assert_close(mine, expected, rtol=0, atol=2e-6 * expected.abs().max().item())


@pytest.mark.gpu
def test_results_repeat_to_the_bit_and_samples_stay_apart():
    w, u, k, v, dy = on_gpu(inputs(257, 10.0, 3.0, batch=3, scans=4, channels=32))
    first, again = (value_and_gradients(triton_backend, w, u, k, v, dy) for _ in range(2))
    alone = value_and_gradients(triton_backend, *(tensor[1:2] for tensor in (w, u, k, v, dy)))
    for one, other, single in zip(first, again, alone, strict=True):
        assert torch.equal(one, other)
        assert torch.equal(one[1:2], single)


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [40, 300])
def test_the_operator_is_known_to_torch(tokens):
    w, u, k, v, _ = on_gpu(inputs(tokens, 10.0, 3.0))
    leaves = [tensor.clone().requires_grad_() for tensor in (w, u, k, v)]
    torch.library.opcheck(torch.ops.fedurwkv.biwkv.default, tuple(leaves))


@pytest.mark.gpu
@pytest.mark.parametrize("tokens", [64, 300])
def test_compiled_whole_under_autocast(tokens):
    w, u, k, v, dy = on_gpu(inputs(tokens, 10.0, 3.0, scans=4, channels=16))
    compiled = torch.compile(biwkv, fullgraph=True)
    expected = value_and_gradients(triton_backend, w, u, k, v, dy)
    with torch.autocast("cuda", torch.bfloat16):
        found = value_and_gradients(compiled, w, u, k, v, dy)
    for mine, plain in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.gpu
def test_captured_in_a_cuda_graph():
    w, u, k, v, dy = on_gpu(inputs(300, 10.0, 3.0, scans=4, channels=16))
    expected = value_and_gradients(triton_backend, w, u, k, v, dy)
    k_then = k.clone()
    k.zero_()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = value_and_gradients(triton_backend, w, u, k, v, dy)
    graph.replay()
    for mine, plain in zip(found, expected, strict=True):
        assert not torch.equal(mine, plain)
    k.copy_(k_then)
    graph.replay()  # on what the first left behind
    for mine, plain in zip(found, expected, strict=True):
        assert torch.equal(mine, plain)


@pytest.mark.gpu
def test_auto_takes_it():
    w, u, k, v, _ = on_gpu(inputs(40, 10.0, 3.0))
    assert torch.equal(biwkv(w, u, k, v), triton_backend(w, u, k, v))
    with pytest.raises(ValueError, match=r"backend = 'triton' computes in float32, and there is a float64 tensor"):
        biwkv(w, u, k.double(), v, backend="triton")


# ---- without a GPU


@needs_triton
def test_tensors_elsewhere_are_refused():
    with pytest.raises(ValueError, match="backend = 'triton' needs tensors on a GPU, not on cpu; use auto or torch"):
        triton_backend(*inputs(4, 1.0, 1.0)[:4])


@pytest.mark.skipif(importlib.util.find_spec("triton") is not None, reason="triton is installed")
def test_without_the_package_that_is_said():
    with pytest.raises(ValueError, match="needs the package triton, which is not installed; use auto or torch"):
        triton_backend(*inputs(4, 1.0, 1.0)[:4])


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("what", ["interpret", "compile"])
def test_without_a_gpu(what):
    # Whether kernels are interpreted is decided when they are defined: in a process of its own.
    path = os.pathsep.join([str(HERE.parents[3]), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "TRITON_INTERPRET": "1" if what == "interpret" else "0"}
    words = [sys.executable, "-W", "ignore", str(HERE.with_name("triton_alone.py")), what]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
