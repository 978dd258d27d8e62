"""BatchNorm and GELU by loops on a CPU, beside torch in float64."""

import copy
from pickle import UnpicklingError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numba import cfunc
from scipy.special import ndtr
from torch import Tensor, nn

from urwkv.ops import norm_loops
from urwkv.ops.norm_loops import GELU_NORM, NORM_GELU
from urwkv.ops.norm_numba import norm_gelu_numba

ORDERS = (NORM_GELU, GELU_NORM)


def norm_of(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels)
    for tensor in norm.parameters():
        nn.init.normal_(tensor)
    return norm


def by_loops(norm: nn.BatchNorm2d, order: int, x: Tensor) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.momentum is not None
    running = norm.running_mean, norm.running_var
    return norm_gelu_numba(
        x, norm.weight, norm.bias, order=order, eps=norm.eps, running=running, momentum=norm.momentum
    )


def by_torch(norm: nn.BatchNorm2d, order: int, x: Tensor) -> Tensor:
    return F.gelu(norm(x)) if order == NORM_GELU else norm(F.gelu(x))


def results(chain, norm: nn.BatchNorm2d, order: int, x: Tensor, dy: Tensor) -> list[Tensor]:
    """The map, the gradients of input, weight and bias, and the running mean and variance."""
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    y = chain(norm, order, x)
    grads = torch.autograd.grad(y, [x, norm.weight, norm.bias], dy)
    return [y.detach(), *grads, norm.running_mean, norm.running_var]


def largest_error(found: list[Tensor], exact: list[Tensor]) -> float:
    """As a share of the largest number of each tensor."""
    pairs = zip(found, exact, strict=True)
    return max(float((a.double() - b).abs().max() / b.abs().max()) for a, b in pairs)


@pytest.mark.parametrize("offset", [0.0, 100.0])
@pytest.mark.parametrize("shape", [(2, 16, 33, 47), (3, 24, 5, 7), (4, 160, 32, 32), (2, 640, 9, 8), (1, 8, 7, 3)])
@pytest.mark.parametrize("order", ORDERS)
def test_outputs_gradients_and_statistics(order, shape, offset, monkeypatch) -> None:
    torch.manual_seed(0)
    like, empty = torch.empty_like, torch.empty
    monkeypatch.setattr(torch, "empty_like", lambda *words, **more: like(*words, **more).fill_(torch.nan))
    monkeypatch.setattr(torch, "empty", lambda *words, **more: empty(*words, **more).fill_(torch.nan))
    norm = norm_of(shape[1])
    exact = copy.deepcopy(norm).double()
    x, dy = 2 * torch.randn(shape) + offset, torch.randn(shape)
    found = results(by_loops, norm, order, x, dy)
    expected = results(by_torch, exact, order, x.double(), dy.double())
    assert largest_error(found, expected) < (2e-6 if offset == 0 else 2e-4)  # float32 knows 100 to 4e-6
    assert found[0].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("order", ORDERS)
def test_a_gradient_that_is_half_of_a_concatenated_map(order) -> None:
    torch.manual_seed(0)
    norm = norm_of(16)
    both = torch.randn(2, 32, 6, 5).to(memory_format=torch.channels_last)[:, 16:]
    x = torch.randn(2, 16, 6, 5)
    found = results(by_loops, copy.deepcopy(norm), order, x, both)
    assert largest_error(found, results(by_torch, norm.double(), order, x.double(), both.double())) < 2e-6


@pytest.mark.parametrize("order", ORDERS)
def test_the_threads_are_torchs_and_change_no_bit(order) -> None:
    torch.manual_seed(0)
    norm, x, dy = norm_of(32), torch.randn(2, 32, 64, 64), torch.randn(2, 32, 64, 64)
    before = torch.get_num_threads()
    try:
        runs = []
        for threads in (1, 2, 3, 20):
            torch.set_num_threads(threads)
            runs.append(results(by_loops, copy.deepcopy(norm), order, x, dy))
    finally:
        torch.set_num_threads(before)
    for run in runs[1:]:
        assert all(map(torch.equal, run, runs[0]))


@pytest.mark.parametrize("order", ORDERS)
def test_a_graph_gives_its_gradients_twice_and_no_second_derivative(order) -> None:
    torch.manual_seed(0)
    norm, x = norm_of(8), torch.randn(2, 8, 4, 4).to(memory_format=torch.channels_last).requires_grad_()
    y = by_loops(norm, order, x)
    first, second = (torch.autograd.grad(y.square().sum(), x, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, second)
    (once,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        once.sum().backward()


@pytest.mark.parametrize("order", ORDERS)
def test_what_is_no_number_stays_none(order) -> None:
    x = torch.randn(1, 8, 4, 4).to(memory_format=torch.channels_last)
    x[0, 3, 1, 1] = torch.nan
    y = by_loops(norm_of(8), order, x)
    assert y[0, 3].isnan().all()
    assert y[0, :3].isfinite().all()


def test_a_channel_that_is_far_below_zero_is_dead() -> None:
    x = (-1e5 + 1e4 * torch.randn(1, 8, 9, 9)).to(memory_format=torch.channels_last).requires_grad_()
    norm = norm_of(8)
    y = by_loops(norm, GELU_NORM, x)
    assert torch.equal(y, norm.bias[:, None, None].expand_as(y))
    (dx,) = torch.autograd.grad(y, x, torch.randn(y.shape))
    assert torch.equal(dx, torch.zeros_like(x))


def test_share_and_slope_are_as_exact_as_torchs() -> None:
    x = np.linspace(-9, 9, 20_001, dtype=np.float32)
    wide = x.astype(np.float64)
    density = np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
    exact = {"share": ndtr(wide), "slope": ndtr(wide) + wide * density}
    for name, bound in {"share": 2.5e-7, "slope": 4e-7}.items():
        found = np.array([getattr(norm_loops, name).py_func(number) for number in x])
        assert found.dtype == np.float32
        assert np.abs(found - exact[name]).max() < bound
    torchs = F.gelu(torch.from_numpy(x)).numpy()
    ours = np.array([number * norm_loops.share.py_func(number) for number in x])
    assert np.abs(ours - wide * exact["share"]).max() < 1.5 * np.abs(torchs - wide * exact["share"]).max()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("cannot cache function 'nothing': no locator available for file '/read/only'"),
        OSError(28, "No space left on device"),
        UnpicklingError("pickle data was truncated"),
    ],
)
def test_where_no_machine_code_can_be_kept_it_is_compiled_for_this_process(error, monkeypatch, caplog) -> None:
    asked = []

    def without_a_folder(signature, cache=False, **language):
        asked.append(cache)
        if cache:
            raise error
        return cfunc(signature, **language)

    def nothing(jobs):
        pass

    monkeypatch.setattr(norm_loops, "cfunc", without_a_folder)
    assert norm_loops._compiled(nothing).address != 0
    assert asked == [True, False]
    assert caplog.messages == [f"nothing is compiled for this process alone, which takes seconds: {error}"]
