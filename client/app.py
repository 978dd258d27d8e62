"""The courier: Flower's ClientApp at a site. It holds no data and imports no torch; it hands every message to
the site's own trainer and carries the answer back.

At a hospital the trainer is a service of the hospital's own, behind the socket that its node config names; in a
simulation it lives in this process.
"""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from flwr.app import Context, Error, Message
from flwr.clientapp import ClientApp

from protocol.errors import BudgetError, FedURWKVError, RunError
from protocol.messages import REFUSED, SPENT, Reply, read_task, reply_content
from protocol.settings import Table, resolve

if TYPE_CHECKING:
    from client.trainer import Trainer

app = ClientApp()

STATE = "state"
"""Folder in a simulated run's folder: what each site remembers and has spent, in a folder of its own."""

SOCKET = "trainer"
"""Key of a SuperNode's node config that names the socket of the hospital's trainer."""

_trainers: dict[str, "Trainer"] = {}
_lock = threading.Lock()


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    """The site's name and its numbers of images."""
    return _carry(message, context)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Evaluate the global model on the site's val split, then train it."""
    return _carry(message, context)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Evaluate a model on one split of the site."""
    return _carry(message, context)


def stop_trainers() -> None:
    """Make every trainer of this process give up what it computes, and forget them."""
    with _lock:
        for trainer in _trainers.values():
            trainer.stop()
        _trainers.clear()


def _carry(message: Message, context: Context) -> Message:
    try:
        reply = _reply_of_service(message, context) if SOCKET in context.node_config else _reply(message, context)
    except FedURWKVError as error:
        code = SPENT if isinstance(error, BudgetError) else REFUSED
        return Message(Error(code, str(error)), reply_to=message)
    return Message(reply_content(reply), reply_to=message)


def _reply_of_service(message: Message, context: Context) -> Reply:
    """What the hospital's trainer answers within the message's time to live, as long as the run goes on."""
    from client.courier import ask  # here, so that a simulation loads no gRPC service

    words = message.metadata
    task = read_task(words.message_type, message.content, resolve(context.run_config))
    seconds = words.created_at + words.ttl - time.time()
    socket = Path(str(context.node_config[SOCKET]))
    return ask(socket, task, max(seconds, 1.0), (context.run_id, context.node_id))


def _reply(message: Message, context: Context) -> Reply:
    trainer = _trainer_of(context)
    return trainer.answer(read_task(message.metadata.message_type, message.content, trainer.settings))


def _trainer_of(context: Context) -> "Trainer":
    """The in-process trainer of a simulated site: made at its first message, then kept warm."""
    # here, so that the courier itself imports no torch
    from client.privacy.policy import OPEN
    from client.trainer import Trainer

    index = int(context.node_config["partition-id"])
    key = json.dumps([index, context.run_config], sort_keys=True)
    with _lock:
        if key not in _trainers:
            settings = resolve(context.run_config)
            site = simulated_site(settings, index)
            state = Path(str(settings["run.out"])) / STATE / site.name
            policy = replace(OPEN, folder=state)
            _trainers[key] = Trainer(site, settings, policy, index=index, state=state, pretend=True)
        return _trainers[key]


def simulated_site(settings: Table, index: int) -> Path:
    """The folder of the simulated site number `index`: the site folders below `run.sites`, by name.

    Raises:
        RunError: there is no such folder.
    """
    root = Path(str(settings["run.sites"]))
    folders = sorted(folder for folder in root.iterdir() if (folder / "images").is_dir())
    if index >= len(folders):
        raise RunError(f"{root} holds {len(folders)} site folders, but site number {index} was asked for")
    return folders[index]
