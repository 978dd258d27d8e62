from pathlib import Path

import numpy as np
import pytest
import torch

from client.data import load_split, normalise
from client.site import read_site
from protocol.codec import decode
from protocol.errors import RoundError
from protocol.messages import DESCRIBE, EVALUATE, TRAIN, Reply, Task
from protocol.packing import Schema
from protocol.settings import Table
from server.app import initial_model
from strategies import STRATEGIES, Update
from tests.client.phantoms import pretend, small, small_sites
from urwkv import URWKV
from urwkv.losses import segmentation_loss

FULL_BATCH = {
    "train_epochs": 1,
    "train_batch": 1000,
    "train_optimizer": "sgd",
    "train_lr": 0.1,
    "train_augment": False,
}
FULL_BATCH |= {"train_schedule": "constant", "train_weight_decay": 0.0}


def first_task(table: Table, kind: str = TRAIN) -> tuple[Schema, Task]:
    x = initial_model(table)
    schema = Schema.of((name, a.shape, a.dtype) for name, a in x.items())
    return schema, Task(kind, 1, schema.hash, schema.pack(x))


def test_a_site_describes_itself(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    reply = pretend(folder, table).answer(Task(DESCRIBE))
    assert reply.site == folder.name
    assert sum(reply.scalars[f"{split}.images"] for split in ("train", "val", "test")) == 10
    assert reply.model == b""


def test_the_model_is_evaluated_as_it_came_before_it_is_trained(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    schema, task = first_task(table)
    trainer = pretend(folder, table)
    trained = trainer.answer(task)
    evaluated = trainer.answer(Task(EVALUATE, 1, schema.hash, task.model))
    for name in ("val.dice", "val.iou", "val.loss", "val.images"):
        assert trained.scalars[name] == evaluated.scalars[name]
    assert trained.model != task.model
    assert evaluated.model == b""
    assert {
        "seconds.read",
        "seconds.load",
        "seconds.evaluate",
        "seconds.train",
        "seconds.pack",
    } <= trained.scalars.keys()


def test_surface_metrics_come_with_the_test_split(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    schema, task = first_task(table)
    reply = pretend(folder, table).answer(Task(EVALUATE, 1, schema.hash, task.model, "test"))
    assert {"test.dice", "test.iou", "test.hd95", "test.nsd", "test.images"} <= reply.scalars.keys()


def test_a_round_computed_again_gives_the_same_weights(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    _, task = first_task(table)
    once, again = (pretend(folder, table).answer(task).model for _ in range(2))
    assert once == again


def one_site_update(folder: Path, table: Table, task: Task, schema: Schema) -> Update:
    reply: Reply = pretend(folder, table).answer(task)
    return Update(reply.site, schema.unpack(reply.model), int(reply.scalars["train.images"]))


def test_fedavg_of_one_full_batch_step_equals_the_centralised_step(tmp_path: Path) -> None:
    table = small(**FULL_BATCH)
    folders = small_sites(tmp_path, table)
    schema, task = first_task(table)
    x = schema.unpack(task.model)
    federated = STRATEGIES["fedavg"]().aggregate(x, [one_site_update(f, table, task, schema) for f in folders])

    pixels, masks = [], []
    for folder in folders:
        split = load_split(read_site(folder, seed=0, val=0.15, test=0.2), "train", 32, 3, 1)
        pixels.append(torch.from_numpy(split.images))
        masks.append(torch.from_numpy(split.masks))
    assert len(pixels[0]) != 0 != len(pixels[1])
    torch.set_num_threads(1)
    model = URWKV(variant="small", norm="group")
    model.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in x.items()})
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    segmentation_loss(model(normalise(torch.cat(pixels))), torch.cat(masks)).backward()
    optimizer.step()
    moved = 0.0
    for name, tensor in model.state_dict().items():
        np.testing.assert_allclose(federated[name], tensor.numpy(), rtol=0, atol=3e-6, err_msg=name)
        moved = max(moved, float(np.abs(federated[name] - x[name]).max()))
    assert moved > 1e-3


def test_the_strategys_correction_reaches_the_steps(tmp_path: Path) -> None:
    plain, pulled = small(), small(federation_strategy="fedprox", strategy_mu=1000.0)
    (folder, _) = small_sites(tmp_path, plain)
    sgd = {"train.optimizer": "sgd", "train.lr": 1e-4}
    distances = []
    for table in (plain, pulled):
        schema, task = first_task(table)
        reply = pretend(folder, {**table, **sgd}).answer(task)
        x, y = schema.unpack(task.model), schema.unpack(reply.model)
        distances.append(sum(float(((y[name] - x[name]) ** 2).sum()) for name in x))
    assert distances[1] < distances[0]


def test_fedprox_with_mu_zero_is_fedavg_bit_for_bit(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    _, task = first_task(table)
    prox = pretend(folder, small(federation_strategy="fedprox", strategy_mu=0.0)).answer(task)
    assert prox.model == pretend(folder, table).answer(task).model


def test_another_schema_is_refused(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    _, task = first_task(small(model_sase="simple"))
    with pytest.raises(RoundError, match="another schema"):
        pretend(folder, table).answer(task)


def test_a_loss_that_is_not_finite_ends_the_round_with_the_cure(tmp_path: Path) -> None:
    table = small(train_optimizer="sgd", train_lr=1e20, train_epochs=2)
    (folder, _) = small_sites(tmp_path, table)
    _, task = first_task(table)
    with pytest.raises(RoundError, match=r"diverged in round 1.*lower train\.lr"):
        pretend(folder, table).answer(task)


def test_a_stopped_trainer_gives_up(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    _, task = first_task(table)
    trainer = pretend(folder, table)
    trainer.stop()
    with pytest.raises(RoundError, match="given up"):
        trainer.answer(task)


def test_a_packed_network_survives_the_round_trip(tmp_path: Path) -> None:
    table = small(model_norm="batch")
    (folder, _) = small_sites(tmp_path, table)
    schema, task = first_task(table)
    trainer = pretend(folder, table)
    trainer.answer(Task(EVALUATE, 1, schema.hash, task.model))
    assert trainer.network.read() == task.model


def test_an_update_in_int8_is_a_quarter_and_nearly_the_update(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    schema, task = first_task(table)
    whole = pretend(folder, table).answer(task)
    short = pretend(folder, small(transfer_codec="int8"), tmp_path / "state").answer(task)
    x = schema.unpack(task.model)
    assert (len(task.model) + len(short.model)) / (2 * len(task.model)) < 0.63
    y, near = schema.unpack(whole.model), decode("int8", schema, x, short.model)
    largest = max(float(np.abs(y[name] - x[name]).max()) for name in x)
    assert 0 < max(float(np.abs(y[name] - near[name]).max()) for name in x) <= largest / 250
