"""A task and a reply as they cross the socket between the courier and the hospital's trainer.

Every field of `Task` and `Reply` travels under its own name (`trainer.proto`); the settings, which are a table,
travel as JSON.
"""

import json
from dataclasses import fields
from typing import Any

from client.trainer_pb2 import Reply as ReplyMessage
from client.trainer_pb2 import Task as TaskMessage
from protocol.messages import Reply, Task

LARGEST = 256 * 2**20
"""Bytes of the largest message; gRPC reads the announced length and refuses a larger one before it allocates."""

LIMITS = (("grpc.max_receive_message_length", LARGEST), ("grpc.max_send_message_length", LARGEST))

SPENT_MARK = ("fedurwkv-refusal", "spent")
"""Trailing metadata of a refusal for want of privacy budget, which unlike any other holds for every later round."""


def task_message(task: Task, code: str) -> TaskMessage:
    """The task as a message, with the digest of the courier's code."""
    words: dict[str, Any] = {field.name: getattr(task, field.name) for field in fields(task)}
    return TaskMessage(**words | {"settings": json.dumps(task.settings), "code": code})


def read_task(message: TaskMessage) -> Task:
    """The task in a message."""
    words = {field.name: getattr(message, field.name) for field in fields(Task)}
    words |= {name: tuple(value) for name, value in words.items() if not isinstance(value, str | bytes | int)}
    return Task(**words | {"settings": json.loads(message.settings)})


def reply_message(reply: Reply) -> ReplyMessage:
    """The reply as a message."""
    return ReplyMessage(**{field.name: getattr(reply, field.name) for field in fields(reply)})


def read_reply(message: ReplyMessage) -> Reply:
    """The reply in a message."""
    words = {field.name: getattr(message, field.name) for field in fields(Reply)}
    return Reply(**words | {"scalars": dict(message.scalars)})
