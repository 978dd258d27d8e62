"""Passes that are recorded: they learn the same, whoever else uses the network, in memory that they share."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import client.network
from client.device import Compile, Place
from client.network import Network
from client.privacy.passes import Passes
from client.privacy.plan import Plan
from client.privacy.randomness import Randomness
from client.step import Rule
from client.training import only
from strategies.local import Phase
from tests.client.privacy.test_phase import CPU, SETTINGS, gap, network, phase, pictures, state
from urwkv import Architecture


class Overwriting:
    """Stands for a recorder where there is no GPU: each replay's results lie where the first one's did."""

    device, after = torch.device("cpu"), 1

    def __init__(self) -> None:
        self.replays = 0

    def do(self, work: Callable[[], Any]) -> Any:
        return work()

    def record(self, work: Callable[[], Any]) -> Callable[[], Any]:
        held: list[Any] = []

        def replay() -> Any:
            self.replays += 1
            result = work()
            if not held:
                held.append(result)
            for old, new in zip(*map(tree_leaves, (held[0], result)), strict=True):
                old.copy_(new)
            return held[0]

        return replay


@pytest.mark.parametrize("views", [1, 2])
def test_recorded_passes_learn_the_same_in_every_phase(views: int) -> None:
    plan = Plan(
        replace(SETTINGS, clip=0.5, physical=3, views=views), units=8, rate=0.6, batch=4.8, noise=0.7, steps=2
    )
    written, recorded, recorder = network(), network(), Overwriting()
    passes = Passes(recorded, CPU, recorder)
    for number in range(2):
        expected = phase(written, plan, randomness=Randomness(seed=number), augment=True)
        found = phase(recorded, plan, passes=passes, randomness=Randomness(seed=number), augment=True)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert recorder.replays > 4 * views
    assert gap(written, network()) > 1e-3
    assert gap(written, recorded) < 1e-5


def plain_steps(network: Network, begins: str) -> None:
    """Of the weights whose names begin so; more than are taken before a GPU's are captured."""
    images, moving = pictures(), [name for name in network.weights if name.startswith(begins)]
    network.model.train()
    network.correction.set(Phase(1), {})
    with only(moving, network.weights):
        step = network.steps.begin(Rule("sgd", 0.0), moving, 8)
        for _ in range(3):
            step(torch.from_numpy(images.images), torch.from_numpy(images.masks), 0.05)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda:0", marks=pytest.mark.gpu)])
def test_private_and_plain_phases_of_one_network_leave_each_others_recordings_right(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever moves in each, and with evaluation between them; beside a network that records nothing."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    recorder = Overwriting()
    if device == "cpu":
        monkeypatch.setattr(
            client.network, "recorder_at", lambda place: recorder if place.compile == "graph" else None
        )
    settings = replace(SETTINGS, clip=0.5, physical=4)
    plan = Plan(settings, units=8, rate=0.6, batch=4.8, noise=0.1, steps=2)
    kinds: tuple[Compile, Compile] = ("off", "graph")
    written, recorded = (
        Network(Architecture("small", norm="group"), Place(torch.device(device), False, k)) for k in kinds
    )
    recorded.hold(written.schema.unpack(written.read()))
    before = state(written.model)
    for number in range(4):
        for each in (written, recorded):
            plain_steps(each, "")
            phase(each.model, plan, passes=each.passes, randomness=Randomness(seed=number))
            plain_steps(each, "up")
            head = frozenset(name for name in each.weights if name.startswith(("fuse", "head")))
            phase(each.model, plan, passes=each.passes, only=head, randomness=Randomness(seed=number))
            with torch.inference_mode():
                each.logits(torch.from_numpy(pictures().images))
            double = replace(plan, settings=replace(settings, views=2))
            phase(each.model, double, passes=each.passes, randomness=Randomness(seed=number))
    assert device != "cpu" or recorder.replays > 40
    way = max(float((w - before[name]).abs().max()) for name, w in written.model.state_dict().items())
    assert way > 1e-2
    assert gap(written.model, recorded.model) < (1e-6 if device == "cpu" else 1e-2 * way)


def test_recordings_share_the_memory_of_their_gradients() -> None:
    model, images = network(), pictures()
    passes, names = Passes(model, CPU, Overwriting()), [name for name, _ in model.named_parameters()]
    places = []
    for learning in (names, names[-3:]):
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in learning)
        with passes.over(learning) as pass_:
            for count in (8, 3, 5):
                batch = torch.from_numpy(images.images[:count]), torch.from_numpy(images.masks[:count])
                _, grads = pass_(*batch, torch.ones(count, dtype=torch.bool))
                places.append(grads[-1].data_ptr())
                assert len(grads[-1]) == count
    assert len(set(places)) == 1
