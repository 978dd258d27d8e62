"""The bound on what one sample adds, the noise, and Opacus's own optimizer as a second opinion."""

import pytest
import torch
from opacus.optimizers import DPOptimizer
from torch import nn

from client.privacy.clipping import MARGIN, SMALL, PrivateOptimizer, factors
from client.privacy.randomness import Randomness

NAMES = ["stem.weight", "stem.bias", "head.weight"]
SHAPES = [(4, 3), (4,), (2, 4)]


def parameters() -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(shape)) for shape in SHAPES]


def optimizer_of(
    weights: list[nn.Parameter], clipping: str = "flat", noise: float = 0.0, bound: float = 1.0, batch: float = 4.0
) -> PrivateOptimizer:
    plain = torch.optim.SGD(weights, lr=1.0)
    chance = Randomness(seed=0)
    return PrivateOptimizer(plain, NAMES, noise=noise, bound=bound, batch=batch, clipping=clipping, randomness=chance)


def give(weights: list[nn.Parameter], batch: int, size: float, seed: int = 0) -> None:
    made = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad_sample = size * torch.randn(batch, *weight.shape, generator=made)


def norm(weights: list[nn.Parameter]) -> float:
    return float(torch.cat([weight.grad.flatten() for weight in weights]).norm())


def test_factors_by_hand() -> None:
    # two tensors of one layer and one of another; three samples of norms 5, 1 and 0
    norms = torch.tensor([[3.0, 0.6, 0.0], [0.0, 0.0, 0.0], [4.0, 0.8, 0.0]])
    flat = factors(norms, 2.0, "flat", [0, 0, 1])
    torch.testing.assert_close(flat, torch.tensor([[0.4 * MARGIN, 1.0, 1.0]]).expand(3, 3))
    layer = factors(norms, 2.0, "layer", [0, 0, 1])
    each = MARGIN * 2.0 / 2**0.5
    wanted = [[each / 3, 1.0, 1.0], [each / 3, 1.0, 1.0], [each / 4, 1.0, 1.0]]
    torch.testing.assert_close(layer, torch.tensor(wanted))
    automatic = factors(norms, 2.0, "automatic", [0, 0, 1])
    torch.testing.assert_close(automatic[0], torch.tensor([2 / 5.01, 2 / 1.01, 2 / 0.01]))


@pytest.mark.parametrize("clipping", ["flat", "layer", "automatic"])
@pytest.mark.parametrize("size", [1e-4, 0.3, 1e3, 1e15])
def test_no_sample_adds_more_than_the_bound(clipping: str, size: float) -> None:
    for seed in range(20):
        weights = parameters()
        optimizer = optimizer_of(weights, clipping, bound=0.7, batch=1.0)
        give(weights, 1, size, seed)
        assert optimizer.pre_step()
        assert norm(weights) <= 0.7


@pytest.mark.parametrize("clipping", ["flat", "layer", "automatic"])
def test_the_sum_of_a_batch_keeps_the_bound_times_the_samples(clipping: str) -> None:
    weights = parameters()
    optimizer = optimizer_of(weights, clipping, bound=0.7, batch=1.0)
    for weight in weights:
        weight.grad_sample = torch.full((9, *weight.shape), 50.0)
    optimizer.pre_step()
    assert 9 * 0.69 < norm(weights) <= 9 * 0.7


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
def test_a_sample_whose_gradient_is_not_finite_adds_nothing(bad: float) -> None:
    weights, without = parameters(), parameters()
    give(weights, 3, 1.0)
    for weight, other in zip(weights, without, strict=True):
        other.grad_sample = weight.grad_sample[[0, 2]].clone()
    weights[1].grad_sample[1, 2] = bad
    optimizer_of(weights).pre_step()
    optimizer_of(without).pre_step()
    for weight, other in zip(weights, without, strict=True):
        torch.testing.assert_close(weight.grad, other.grad)


@pytest.mark.parametrize("clipping", ["flat", "layer", "automatic"])
def test_small_tensors_of_a_size_are_scaled_at_once_each_as_its_layer_is(clipping: str) -> None:
    """In two physical batches, beside one tensor after the other."""
    names = ["a.weight", "b.weight", "b.bias", "a.bias", "c.weight", "c.bias"]
    shapes = [(2, 3), (SMALL + 1,), (4,), (6,), (2, 2), (SMALL + 1,)]
    weights = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    optimizer = PrivateOptimizer(
        torch.optim.SGD(weights, lr=1.0), names, noise=0.0, bound=1.0, batch=2.0, clipping=clipping,
        randomness=Randomness(seed=0),
    )  # fmt: skip
    wanted = [torch.zeros_like(weight) for weight in weights]
    for batch in (3, 2):
        optimizer.zero_grad(set_to_none=True)
        give(weights, batch, 0.3, seed=batch)
        for i, weight in enumerate(weights):
            weight.grad_sample *= i + 1
        norms = torch.stack([weight.grad_sample.flatten(1).norm(dim=1) for weight in weights])
        scales = factors(norms, 1.0, clipping, [0, 1, 1, 0, 2, 2])
        for total, weight, scale in zip(wanted, weights, scales, strict=True):
            total += torch.tensordot(scale, weight.grad_sample, dims=1) / 2
        optimizer.signal_skip_step(batch == 3)
        optimizer.pre_step()
    for weight, total in zip(weights, wanted, strict=True):
        torch.testing.assert_close(weight.grad, total)


def test_flat_clipping_equals_opacus() -> None:
    ours, theirs = parameters(), parameters()
    give(ours, 6, 0.2)
    give(theirs, 6, 0.2)
    optimizer_of(ours).pre_step()
    stock = torch.optim.SGD(theirs, lr=1.0)
    DPOptimizer(stock, noise_multiplier=0.0, max_grad_norm=1.0, expected_batch_size=4).pre_step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=3e-5)


def test_physical_batches_add_up_and_get_their_noise_once() -> None:
    whole, parts = parameters(), parameters()
    give(whole, 7, 1.0)
    at_once, in_parts = optimizer_of(whole, noise=3.0), optimizer_of(parts, noise=3.0)
    at_once.pre_step()
    for start, stop in ((0, 3), (3, 5), (5, 7)):
        in_parts.zero_grad(set_to_none=True)
        for weight, other in zip(parts, whole, strict=True):
            weight.grad_sample = other.grad_sample[start:stop].clone()
        in_parts.signal_skip_step(stop < 7)
        assert in_parts.pre_step() is (stop == 7)
    for one, other in zip(parts, whole, strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_an_empty_batch_adds_noise_alone_and_of_the_right_size() -> None:
    weight = nn.Parameter(torch.zeros(200, 500))
    plain = torch.optim.SGD([weight], lr=1.0)
    optimizer = PrivateOptimizer(
        plain, ["a.weight"], noise=1.5, bound=0.4, batch=8.0, clipping="flat", randomness=Randomness(seed=0)
    )
    weight.grad_sample = torch.zeros(0, 200, 500)
    optimizer.pre_step()
    # standard deviation sigma C / L; of 10^5 numbers it is known to 0.22 %
    assert weight.grad.std().item() == pytest.approx(1.5 * 0.4 / 8, rel=0.01)
    assert weight.grad.mean().item() == pytest.approx(0, abs=4 * 1.5 * 0.4 / 8 / 1e5**0.5)


def test_gradients_that_were_used_cannot_be_used_again() -> None:
    weights = parameters()
    optimizer = optimizer_of(weights)
    give(weights, 2, 1.0)
    optimizer.pre_step()
    with pytest.raises(ValueError, match="haven't been cleared"):
        optimizer.pre_step()
