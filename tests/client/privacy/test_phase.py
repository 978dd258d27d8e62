"""Private training of the real network: against plain training, by hand, and what it must refuse."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from client.data import Images, normalise
from client.device import Place
from client.privacy import phase as module
from client.privacy.average import Average
from client.privacy.draws import rows_by_unit
from client.privacy.passes import Passes
from client.privacy.phase import Walked, private_phase
from client.privacy.plan import Plan
from client.privacy.randomness import Randomness
from client.privacy.settings import PrivacySettings
from client.privacy.trainable import trainable_names
from protocol.errors import RoundError
from urwkv import URWKV
from urwkv.losses import segmentation_loss

CPU = Place(torch.device("cpu"), bf16=False, compile="off")


SETTINGS = PrivacySettings(
    epsilon=4.0,
    delta=1e-5,
    unit="patient",
    batch=8,
    physical=3,
    clipping="flat",
    clip=float("inf"),
    trainable="all",
    views=1,
    ema=0.0,
    accountant="rdp",
)


EVERYONE = Plan(SETTINGS, units=8, rate=1.0, batch=8.0, noise=0.0, steps=1)


NOBODY = Plan(SETTINGS, units=8, rate=1e-9, batch=8.0, noise=0.0, steps=1)


def pictures(count: int = 8, side: int = 32) -> Images:
    rng = np.random.default_rng(0)
    masks = np.zeros((count, side, side), np.uint8)
    masks[:, 8:24, 8:20] = 1
    images = rng.integers(0, 80, (count, side, side, 3), dtype=np.uint8) + 120 * masks[..., None]
    return Images(images, masks, tuple(str(number) for number in range(count)))


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return URWKV(variant="small", norm="group")


def sgd(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=1.0)


def phase(
    model: nn.Module, plan: Plan, epochs: int = 1, rate: float = 0.1, *, passes: Passes | None = None, **more: Any
) -> Walked:
    images = pictures()
    words: dict[str, Any] = {"make_optimizer": sgd, "randomness": Randomness(seed=0), "augment": False}
    units = rows_by_unit(images.names, "patient")
    return private_phase(
        passes or Passes(model, CPU), images, units, plan, epochs=epochs, learning_rate=lambda step: rate,
        **words | more,
    )  # fmt: skip


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def gap(one: nn.Module, other: nn.Module) -> float:
    return max(float((a - b).detach().abs().max()) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_without_noise_and_bound_it_is_plain_training_on_the_same_batches(layout: torch.memory_format) -> None:
    private, plain, images = network(), network(), pictures()
    private.to(memory_format=layout)  # type: ignore[call-overload]

    def fused(weights: list[nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(weights, lr=1.0, fused=True)

    walked = phase(private, EVERYONE, epochs=3, make_optimizer=fused)
    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    losses = []
    for _ in range(3):
        loss = segmentation_loss(plain(normalise(torch.from_numpy(images.images))), torch.from_numpy(images.masks))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert gap(plain, network()) > 1e-2
    assert gap(private, plain) < 1e-5
    assert walked.rates == (0.1, 0.1, 0.1)
    assert walked.loss == pytest.approx(np.mean(losses), rel=1e-4)


@pytest.mark.parametrize("physical", [1, 8])
def test_memory_does_not_change_what_is_learnt(physical: int) -> None:
    settings = replace(SETTINGS, clip=0.5)
    plan = Plan(settings, units=8, rate=0.6, batch=4.8, noise=0.7, steps=2)
    one, other = network(), network()
    phase(one, plan)
    phase(other, replace(plan, settings=replace(settings, physical=physical)))
    assert gap(one, network()) > 1e-3
    assert gap(one, other) < 1e-5


@pytest.mark.parametrize("physical", [3, 8])
def test_what_fills_a_batch_up_teaches_nothing(physical: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a GPU's are filled; 5 of 8 on average are drawn, in batches of up to 3 or of up to 8."""
    sizes: list[int] = []

    class Watched(URWKV):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            return super().forward(images)

    settings = replace(SETTINGS, clip=0.5, physical=physical, views=2)
    plan = Plan(settings, units=8, rate=0.6, batch=4.8, noise=0.7, steps=3)
    torch.manual_seed(0)
    one, other = network(), Watched(variant="small", norm="group")
    other.load_state_dict(one.state_dict())
    told = phase(one, plan)
    chunks = module._chunks
    monkeypatch.setattr(module, "_chunks", lambda *words: chunks(*words[:-1], 4))
    assert phase(other, plan).loss == pytest.approx(told.loss, rel=1e-5)
    assert set(sizes) == ({3} if physical == 3 else {4, 8})
    assert gap(one, network()) > 1e-3
    assert gap(one, other) < 1e-5


def test_views_that_are_alike_are_one_view() -> None:
    one, three = network(), network()
    phase(one, EVERYONE)
    phase(three, replace(EVERYONE, settings=replace(SETTINGS, views=3)))
    assert gap(one, three) < 1e-6


def test_augmented_views_differ_and_repeat_with_the_seed() -> None:
    plan = replace(EVERYONE, settings=replace(SETTINGS, views=2))
    models = [network() for _ in range(3)]
    for model, seed in zip(models, (1, 1, 2), strict=True):
        phase(model, plan, augment=True, randomness=Randomness(seed))
    assert gap(models[0], models[1]) == 0
    assert gap(models[0], models[2]) > 1e-5


def test_a_step_that_draws_nobody_moves_by_noise_alone() -> None:
    model = network()
    before = state(model)
    plan = replace(NOBODY, noise=2.0, settings=replace(SETTINGS, clip=0.5))
    walked = phase(model, plan)
    moved = torch.cat([(model.state_dict()[name] - old).flatten() for name, old in before.items()])
    assert moved.std().item() == pytest.approx(0.1 * 2.0 * 0.5 / 8, rel=0.01)
    assert walked == Walked((0.1,), 0.0)


@pytest.mark.parametrize("which", ["decoder", "head_and_norms"])
def test_only_the_named_tensors_learn(which: str) -> None:
    model = network()
    before = state(model)
    phase(model, replace(EVERYONE, settings=replace(SETTINGS, trainable=which)))
    changed = {name for name, old in before.items() if not torch.equal(model.state_dict()[name], old)}
    assert changed == trainable_names(model, which)
    assert all(weight.requires_grad for weight in model.parameters())


def test_the_named_tensors() -> None:
    model = network()
    assert trainable_names(model, "all") == {name for name, _ in model.named_parameters()}
    assert {name.partition(".")[0] for name in trainable_names(model, "decoder")} == {"up", "fuse", "head"}
    small = trainable_names(model, "head_and_norms")
    assert {"head.weight", "stem.1.weight", "darm.norm_spatial.bias"} <= small
    assert not small & {"stem.0.weight", "darm.gamma_spatial.weight", "darm.spatial.decay.weight"}


def test_a_strategy_restricts_what_learns_further() -> None:
    model = network()
    before = state(model)
    only = frozenset({"head.bias", "stem.0.weight"})
    phase(model, replace(EVERYONE, settings=replace(SETTINGS, trainable="decoder")), only=only)
    assert [name for name, old in before.items() if not torch.equal(model.state_dict()[name], old)] == ["head.bias"]
    assert phase(model, EVERYONE, only=frozenset()) == Walked((), 0.0)


def test_a_correction_comes_after_the_noise_and_before_the_step() -> None:
    model = network()
    before = state(model)
    seen = []

    def correct() -> None:
        seen.append(model.head.bias.grad.clone())
        model.head.bias.grad.add_(3.0)

    phase(model, replace(NOBODY, noise=1.0, settings=replace(SETTINGS, clip=1.0)), correct=correct)
    assert seen[0].abs().item() > 0
    torch.testing.assert_close(model.head.bias.data, before["head.bias"] - 0.1 * (seen[0] + 3.0))


def test_the_average_by_hand() -> None:
    weight = torch.tensor([1.0])
    average = Average([weight], decay=0.3)
    weight.fill_(2.0)
    average.update()  # b = 2/11: 2/11 * 1 + 9/11 * 2
    weight.fill_(4.0)
    average.update()  # b = 3/12: 1/4 * 20/11 + 3/4 * 4
    for _ in range(2):
        average.update()  # b = 0.3, since 4/13 and 5/14 are larger
    average.write()
    assert weight.item() == pytest.approx(4 - 0.09 * (4 - (5 / 11 + 3)), rel=1e-6)


def test_the_average_is_what_a_phase_leaves() -> None:
    last, averaged = network(), network()
    phase(last, EVERYONE)
    phase(averaged, replace(EVERYONE, settings=replace(SETTINGS, ema=0.9)))
    start = network()
    for begun, ended, between in zip(start.parameters(), last.parameters(), averaged.parameters(), strict=True):
        torch.testing.assert_close(between, begun + 9 / 11 * (ended - begun), rtol=1e-4, atol=1e-6)


def test_a_round_that_is_given_up_or_diverges_is_an_error() -> None:
    with pytest.raises(RoundError, match="given up on request"):
        phase(network(), EVERYONE, stopped=lambda: True)
    with pytest.raises(RoundError, match=r"diverged.*lower train\.lr or privacy\.clip"):
        phase(network(), replace(NOBODY, noise=1e30, settings=replace(SETTINGS, clip=1e20)))


def test_it_learns_under_noise() -> None:
    model = network()
    plan = Plan(replace(SETTINGS, clip=1.0), units=8, rate=1.0, batch=8.0, noise=0.05, steps=1)
    first = phase(model, plan, rate=0.2).loss
    phase(model, plan, epochs=8, rate=0.2)
    assert phase(model, plan, rate=0.2).loss < 0.8 * first
