"""The courier's way to the hospital's trainer: one call over an owner-only Unix socket. It imports no torch."""

from pathlib import Path

import grpc

from client.trainer_pb2_grpc import TrainerStub
from client.wire import LIMITS, SPENT_MARK, read_reply, task_message
from protocol.errors import BudgetError, DeploymentError
from protocol.messages import Reply, Task
from protocol.version import code_digest


def ask(socket: Path, task: Task, seconds: float) -> Reply:
    """Hand a task to the trainer behind `socket` and wait for its reply.

    When the call ends for any reason, the courier's death among them, the trainer gives the task up.

    Args:
        seconds: until when the round waits for the reply.

    Raises:
        BudgetError: the trainer refused because the privacy budget is spent.
        DeploymentError: the trainer is not there, refused, failed, or took too long; says which, for both ends.
    """
    absent = f"the site's trainer does not answer on {socket}; at the site: fedurwkv site start"
    if not socket.exists():
        raise DeploymentError(absent)
    with grpc.insecure_channel(f"unix:{socket}", options=LIMITS) as channel:
        try:
            return read_reply(TrainerStub(channel).Answer(task_message(task, code_digest()), timeout=seconds))
        except grpc.RpcError as error:
            code, details = error.code(), error.details()
            if SPENT_MARK in [tuple(pair) for pair in error.trailing_metadata() or ()]:
                raise BudgetError(str(details)) from error
    if code is grpc.StatusCode.UNAVAILABLE:
        raise DeploymentError(absent)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        raise DeploymentError(f"the site's trainer did not finish within the {seconds:.0f} s that the round waits")
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        raise DeploymentError(f"a message is larger than the site's trainer takes: {details}")
    raise DeploymentError(str(details))
