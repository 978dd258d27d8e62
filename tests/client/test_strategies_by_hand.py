"""What a trainer does for a strategy against the same steps written out in plain torch, on the same images.

Two sites of unlike sizes, so that one takes one step an epoch and the other two; two epochs; two rounds, so that what
sites remember from the first one counts in the second.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from client.data import batches, load_split, normalise
from client.memory import StateFolder
from client.site import read_site
from protocol.messages import TRAIN, Reply, Task
from protocol.packing import Schema
from protocol.seeds import seed_of
from protocol.settings import Table
from server.app import initial_model
from strategies import Strategy, Update
from strategies.local import Arrays
from tests.client.phantoms import pretend, small, small_sites
from urwkv import URWKV
from urwkv.losses import segmentation_loss

LR, EPOCHS, ALPHA, LAM = 0.1, 2, 0.5, 0.3
Tensors = dict[str, torch.Tensor]
Correction = Callable[[Tensors], Tensors]


def table_of(strategy: str, **changed: object) -> Table:
    plain = {"train_optimizer": "sgd", "train_lr": LR, "train_epochs": EPOCHS, "train_batch": 7, "data_size": 16}
    plain |= {"train_augment": False, "train_schedule": "constant", "train_weight_decay": 0.0, "data_images": 9}
    return small(federation_strategy=strategy, **{**plain, **changed})


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two sites; pictures of the second are taken away, so that one batch holds all of its training split."""
    first, second = small_sites(tmp_path_factory.mktemp("two"), table_of("fedavg", data_images=12))
    rows = (second / "site.csv").read_text().splitlines()
    training = [row for row in rows if ",train" in row][:4]
    for row in training:
        (second / "images" / f"{row.partition(',')[0]}.png").unlink()
        (second / "masks" / f"{row.partition(',')[0]}.png").unlink()
    (second / "site.csv").write_text("\n".join(row for row in rows if row not in training) + "\n")
    return [first, second]


class Hand:
    """A site by hand: the same batches, plain torch, y <- y - lr (g + correction(y))."""

    def __init__(self, folder: Path, table: Table) -> None:
        self.table = table
        self.site = read_site(folder, seed=0, val=0.15, test=0.2)
        self.images = load_split(self.site, "train", int(table["data.size"]), 3, 1)
        self.steps = EPOCHS * -(-len(self.images) // int(table["train.batch"]))

    def train(self, x: Tensors, number: int, correction: Correction, start: Tensors | None = None) -> Tensors:
        torch.set_num_threads(1)
        model = URWKV(variant="small", norm="group")
        model.load_state_dict(start or x)
        weights = dict(model.named_parameters())
        for epoch in range(EPOCHS):
            seed = seed_of(0, self.site.name, number, epoch)
            for pixels, masks in batches(self.images, int(self.table["train.batch"]), seed, augment=False):
                loss = segmentation_loss(model(normalise(pixels)), masks)
                gradients = torch.autograd.grad(loss, list(weights.values()))
                with torch.no_grad():
                    added = correction({name: w.detach().clone() for name, w in weights.items()})
                    for (name, w), g in zip(weights.items(), gradients, strict=True):
                        w -= LR * (g + added.get(name, torch.zeros(())))
        return {name: tensor.clone() for name, tensor in model.state_dict().items()}


class Study:
    """Two real trainers and the server's half, with the replies of each round and the tasks by hand."""

    def __init__(self, strategy: str, folders: list[Path], state: Path, **changed: object) -> None:
        self.table = table_of(strategy, **changed)
        self.trainers = [pretend(folder, self.table, state / folder.name) for folder in folders]
        self.hands = [Hand(folder, self.table) for folder in folders]
        assert [hand.steps for hand in self.hands] == [4, 2]
        self.strategy: Strategy = self.trainers[0].strategy
        self.strategy.sites = 2
        self.x: dict[str, np.ndarray] = dict(initial_model(self.table))
        self.schema = Schema.like(self.x)
        self.state = state

    def replies(self, number: int) -> list[Reply]:
        received = self.strategy.broadcast(self.x)
        beside = Schema.like(received)
        packed = (self.schema.hash, self.schema.pack(self.x), "val")
        task = Task(
            TRAIN,
            number,
            *packed,
            study="s",
            accepted=number - 1,
            received_schema=beside.hash,
            received=beside.pack(received),
        )
        return [trainer.answer(task) for trainer in self.trainers]

    def aggregate(self, replies: list[Reply]) -> None:
        updates = [
            Update(r.site, self.schema.unpack(r.model), int(r.scalars["train.images"]), r.scalars) for r in replies
        ]
        self.x = self.strategy.aggregate(self.x, updates)

    def remembered(self, site: int, number: int) -> Arrays:
        return StateFolder(self.state / self.trainers[site].site.name, "s")[number]


def tensors(arrays: Arrays) -> Tensors:
    return {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}


def assert_same(found: Arrays, expected: Tensors, start: Tensors, tolerance: float = 2e-5) -> None:
    """The two agree to a small part of how far the tensors have moved, which is not nothing."""
    moved = max(float((expected[name] - start[name]).abs().max()) for name in expected)
    assert moved > 1e-3
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor.numpy(), rtol=0, atol=tolerance, err_msg=name)


def nothing(y: Tensors) -> Tensors:
    return {}


def mean(models: list[Tensors], weights: list[float]) -> Tensors:
    total = sum(weights)
    return {
        name: sum(
            (w / total * m[name].double() for m, w in zip(models, weights, strict=True)), torch.zeros(())
        ).float()
        for name in models[0]
    }


def test_fedavg(folders: list[Path], tmp_path: Path) -> None:
    study = Study("fedavg", folders, tmp_path)
    x = tensors(study.x)
    by_hand = [hand.train(x, 1, nothing) for hand in study.hands]
    study.aggregate(study.replies(1))
    expected = mean(by_hand, [float(len(hand.images)) for hand in study.hands])
    assert_same(study.x, expected, x)


def test_fednova_weighs_directions_by_examples_and_not_by_steps(folders: list[Path], tmp_path: Path) -> None:
    study = Study("fednova", folders, tmp_path)
    x = tensors(study.x)
    by_hand = [hand.train(x, 1, nothing) for hand in study.hands]
    replies = study.replies(1)
    assert [reply.scalars["train.effective_steps"] for reply in replies] == pytest.approx([4.0, 2.0])
    study.aggregate(replies)
    n = [len(hand.images) for hand in study.hands]
    p = [count / sum(n) for count in n]
    tau = p[0] * 4 + p[1] * 2
    expected = {
        name: (a - tau * sum(p[i] * (a - by_hand[i][name]) / (4, 2)[i] for i in (0, 1))).float()
        for name, a in x.items()
    }
    assert_same(study.x, expected, x)


def test_scaffold_over_two_rounds(folders: list[Path], tmp_path: Path) -> None:
    study = Study("scaffold", folders, tmp_path)
    c: Tensors = {name: torch.zeros_like(a) for name, a in tensors(study.x).items()}
    own = [c, c]
    for number in (1, 2):
        x = tensors(study.x)
        ends, variates = [], []
        for hand, c_i in zip(study.hands, own, strict=True):

            def correction(y: Tensors, c_i: Tensors = c_i, c: Tensors = c) -> Tensors:
                return {name: c[name] - c_i[name] for name in y}

            y = hand.train(x, number, correction)
            ends.append(y)
            variates.append({n: c_i[n] - c[n] + (x[n] - y[n]) / (hand.steps * LR) for n in x})
        replies = study.replies(number)
        for site, (reply, y) in enumerate(zip(replies, ends, strict=True)):
            assert reply.scalars["train.travel"] == pytest.approx(study.hands[site].steps * LR)
            assert_same(study.schema.unpack(reply.model), y, x)
            remembered = study.remembered(site, number)
            largest = max(float(a.abs().max()) for a in variates[site].values())
            for name, expected in variates[site].items():
                np.testing.assert_allclose(
                    remembered[name], expected.numpy(), rtol=0, atol=1e-3 * largest, err_msg=name
                )
        study.aggregate(replies)
        assert_same(study.x, mean(ends, [1.0, 1.0]), x)
        c = {
            n: c[n] + sum((new[n] - old[n] for new, old in zip(variates, own, strict=True)), torch.zeros(())) / 2
            for n in c
        }
        own = variates


def test_feddyn_over_two_rounds(folders: list[Path], tmp_path: Path) -> None:
    study = Study("feddyn", folders, tmp_path, strategy_alpha=ALPHA)
    zero: Tensors = {name: torch.zeros_like(a) for name, a in tensors(study.x).items()}
    h, own = zero, [zero, zero]
    for number in (1, 2):
        x = tensors(study.x)
        ends = []
        for hand, g_i in zip(study.hands, own, strict=True):

            def correction(y: Tensors, g_i: Tensors = g_i, x: Tensors = x) -> Tensors:
                return {name: ALPHA * (w - x[name]) - g_i[name] for name, w in y.items()}

            ends.append(hand.train(x, number, correction))
        replies = study.replies(number)
        for reply, y in zip(replies, ends, strict=True):
            assert_same(study.schema.unpack(reply.model), y, x)
        study.aggregate(replies)
        own = [{n: g[n] - ALPHA * (y[n] - x[n]) for n in x} for g, y in zip(own, ends, strict=True)]
        h = {n: h[n] - ALPHA / 2 * sum((y[n] - x[n] for y in ends), torch.zeros(())) for n in x}
        middle = mean(ends, [1.0, 1.0])
        assert_same(study.x, {n: middle[n] - h[n] / ALPHA for n in x}, x, 6e-5)


def test_ditto_over_two_rounds(folders: list[Path], tmp_path: Path) -> None:
    study = Study("ditto", folders, tmp_path, strategy_lam=LAM)
    own: list[Tensors | None] = [None, None]
    for number in (1, 2):
        x = tensors(study.x)

        def correction(v: Tensors, x: Tensors = x) -> Tensors:
            return {name: LAM * (w - x[name]) for name, w in v.items()}

        own = [hand.train(x, number, correction, v) for hand, v in zip(study.hands, own, strict=True)]
        shared = [hand.train(x, number, nothing) for hand in study.hands]
        replies = study.replies(number)
        for site, reply in enumerate(replies):
            assert_same(study.remembered(site, number), own[site], x)
            assert_same(study.schema.unpack(reply.model), shared[site], x)
        study.aggregate(replies)


def test_weight_decay_is_part_of_the_gradient_that_scaffold_sees(folders: list[Path], tmp_path: Path) -> None:
    """(x - y) / (K lr) is then the mean gradient of f_i + decay/2 |y|^2: c_i of the first round tells."""
    decay = 0.5
    study = Study("scaffold", folders, tmp_path, train_weight_decay=decay)
    x = tensors(study.x)
    y = study.hands[1].train(x, 1, lambda y: {name: decay * w for name, w in y.items()})
    study.replies(1)
    remembered = study.remembered(1, 1)
    for name in x:
        expected = ((x[name] - y[name]) / (2 * LR)).numpy()
        np.testing.assert_allclose(remembered[name], expected, rtol=0, atol=3e-4, err_msg=name)
