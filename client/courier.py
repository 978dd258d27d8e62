"""The courier's way to the hospital's trainer: one call over an owner-only Unix socket. It imports no torch."""

import contextlib
from pathlib import Path

import grpc

from client.lifeline import NAME, lifeline
from client.trainer_pb2_grpc import TrainerStub
from client.wire import LIMITS, SPENT_MARK, read_reply, task_message
from protocol.errors import BudgetError, DeploymentError
from protocol.messages import Reply, Task
from protocol.version import code_digest


def ask(socket: Path, task: Task, seconds: float, run: tuple[int, int] | None = None) -> Reply:
    """Hand a task to the trainer behind `socket` and wait for its reply.

    When the call ends for any reason, the courier's death among them, the trainer gives the task up.

    Args:
        seconds: until when the round waits for the reply.
        run: Flower's ids of the run and of this site, so that the task is given up when the run is over.

    Raises:
        BudgetError: the trainer refused because the privacy budget is spent.
        DeploymentError: the trainer is not there, refused, failed, or took too long, or the run is over; says which,
            for both ends.
    """
    absent = f"the site's trainer does not answer on {socket}; at the site: fedurwkv site start"
    if not socket.exists():
        raise DeploymentError(absent)
    with contextlib.ExitStack() as stack:
        channel = stack.enter_context(grpc.insecure_channel(f"unix:{socket}", options=LIMITS))
        call = TrainerStub(channel).Answer.future(task_message(task, code_digest()), timeout=seconds)
        if run is not None:
            stack.enter_context(lifeline(socket.with_name(NAME), *run, call.cancel))
        try:
            return read_reply(call.result())
        except grpc.FutureCancelledError:
            raise DeploymentError("the run is over: it was stopped, or has failed") from None
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
