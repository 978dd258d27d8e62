"""Weights cast all at once: the numbers of autocast, and gradients for those that learn."""

import pytest
import torch
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode

from urwkv import URWKV
from urwkv.lowered import lowered
from urwkv.steps import choose


class Casts(TorchDispatchMode):
    """Counts casts of single tensors."""

    number = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.number += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


@pytest.fixture
def network() -> URWKV:
    torch.manual_seed(0)
    network = URWKV(variant="small", norm="group").to(memory_format=torch.channels_last)
    choose(network, "auto")
    return network


def gradients(network, x, *, at_once, dtype=torch.bfloat16):
    network.zero_grad()
    with torch.autocast("cpu", dtype):
        weights = lowered(network, dtype) if at_once else {}
        y = functional_call(network, weights, (x,))
        y.float().square().mean().backward()
    return y.detach(), {name: weight.grad for name, weight in network.named_parameters()}


@pytest.mark.parametrize("learning", ["all", "up", "darm.spatial", "head.bias"])
def test_the_numbers_are_those_of_autocast(network: URWKV, learning: str) -> None:
    for name, weight in network.named_parameters():
        weight.requires_grad_(learning == "all" or name.startswith(learning))
    x = torch.randn(2, 3, 32, 32).to(memory_format=torch.channels_last)
    (y, mine), (expected, written) = (gradients(network, x, at_once=at_once) for at_once in (True, False))
    assert torch.equal(y, expected)
    for name, weight in network.named_parameters():
        assert (mine[name] is None) == (written[name] is None) == (not weight.requires_grad), name
        if weight.requires_grad:
            assert mine[name].dtype == torch.float32
            assert torch.equal(mine[name], written[name]), name


def test_they_are_cast_at_once(network: URWKV) -> None:
    x, casts = torch.randn(1, 3, 32, 32), {}
    for at_once in (True, False):
        with Casts() as counted:
            gradients(network, x, at_once=at_once)
        casts[at_once] = counted.number
    products = sum(name.endswith("weight") and weight.ndim > 1 for name, weight in network.named_parameters())
    assert casts[False] - casts[True] == 2 * (products - len(network.up)), casts


def test_the_network_is_left_as_it_was(network: URWKV) -> None:
    before = dict(network.named_parameters())
    gradients(network, torch.randn(1, 3, 32, 32), at_once=True)
    assert all(weight is before[name] for name, weight in network.named_parameters())
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
