"""Pretend sites for the server's tests: client apps that compute with numpy and misbehave on request.

The grid between them and the server is the real LocalGrid, the messages are the real ones.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Context, Error, Message

from protocol.messages import DESCRIBE, TRAIN, Reply, Task, read_task, reply_content
from protocol.packing import Schema
from protocol.seeds import seed_of
from protocol.settings import Table, resolve
from server.journal import Journal, State
from server.rounds import Federation
from server.status import Status
from simulation.local_grid import LocalGrid

X0 = {
    "w": np.linspace(-1, 1, 40, dtype=np.float32).reshape(5, 8),
    "n.running_mean": np.zeros(4, np.float32),
    "n.running_var": np.ones(4, np.float32),
    "n.num_batches_tracked": np.array(0),
}
SCHEMA = Schema.of((name, a.shape, a.dtype) for name, a in X0.items())

Misdeed = Callable[[Reply], Reply | Error]


def name_of(index: int) -> str:
    return f"site-{index}"


def examples_of(index: int) -> int:
    return 10 * (index + 1)


def honest(index: int, task: Task) -> Reply:
    """A reply whose model is the global one plus noise that depends on site and round alone."""
    site = name_of(index)
    counts = {"train.images": float(examples_of(index)), "val.images": 4.0, "test.images": 5.0}
    if task.kind == DESCRIBE:
        return Reply(site, 0, scalars=counts)
    x = SCHEMA.unpack(task.model)
    quality = float(1 / (1 + np.abs(x["w"]).mean() + 0.1 * index))
    scores = {f"{task.split}.{metric}": quality for metric in ("dice", "iou", "nsd", "hd95", "loss")}
    scalars = {f"{task.split}.images": counts[f"{task.split}.images"], **scores} if task.split else {}
    scalars |= {"seconds.evaluate": 0.001}
    if task.kind != TRAIN:
        return Reply(site, task.round, scalars=scalars)
    rng = np.random.default_rng(seed_of(site, task.round))
    y: dict[str, Any] = {
        name: (a * 0.9 + rng.normal(0, 0.01, a.shape)).astype(a.dtype) if a.dtype == np.float32 else a + 3
        for name, a in x.items()
    }
    y["n.running_var"] = np.abs(y["n.running_var"])
    scalars |= {"train.images": counts["train.images"], "train.loss": 1.0, "seconds.train": 0.001}
    return Reply(site, task.round, SCHEMA.hash, SCHEMA.pack(y), scalars)


def with_model(**changed: np.ndarray) -> Misdeed:
    """The misdeed of sending these tensors in place of the honest ones."""

    def misdeed(reply: Reply) -> Reply:
        return replace(reply, model=SCHEMA.pack({**SCHEMA.unpack(reply.model), **changed}))

    return misdeed


def with_scalars(**changed: float) -> Misdeed:
    """The misdeed of sending these numbers; `train_images` stands for `train.images`."""
    scalars = {name.replace("_", ".", 1): value for name, value in changed.items()}
    return lambda reply: replace(reply, scalars={**reply.scalars, **scalars})


def without(name: str) -> Misdeed:
    """The misdeed of leaving one number out."""
    return lambda reply: replace(reply, scalars={k: v for k, v in reply.scalars.items() if k != name})


def client_app(misdeeds: Mapping[int, Misdeed]) -> Callable[[Message, Context], Message]:
    """A client app whose sites are honest but for the misdeeds, by site number, in training rounds."""

    def app(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        task = read_task(message.metadata.message_type, message.content, {})
        answer: Reply | Error = honest(index, task)
        if index in misdeeds and task.kind == TRAIN:
            answer = misdeeds[index](answer)
        if isinstance(answer, Error):
            return Message(answer, reply_to=message)
        return Message(reply_content(answer), reply_to=message)

    return app


def settings(**changed: object) -> Table:
    """A complete table with differences like `federation_rounds=3`."""
    return resolve({key.replace("_", ".", 1): value for key, value in changed.items()})


def federate(
    run: Path,
    table: Table,
    sites: int,
    misdeeds: Mapping[int, Misdeed] | None = None,
    state: State | None = None,
    app: Callable[[Message, Context], Message] | None = None,
    expected: int | None = None,
    lanes: int = 1,
) -> State:
    """Run the real rounds over pretend sites, beginning when `expected` have joined; the state at the end."""
    table = {**table, "federation.sites": expected or sites}
    grid = LocalGrid(app or client_app(misdeeds or {}), sites, lanes, table)
    state = state or State(settings=table, model={name: a.copy() for name, a in X0.items()})
    try:
        Federation(grid, state, Journal(run), Status(run)).run()
    finally:
        grid.close()
    return state
