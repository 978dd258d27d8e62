"""The trainer service: the hospital's own long-lived process, which holds data, device, network and policy.

    python -m client.service SITE

serves `trainer.proto` and gRPC's standard health service on a Unix socket that only the hospital's user can open.
The code that a server ships to the courier can ask here, and nothing more.
"""

import contextlib
import hashlib
import json
import logging
import os
import signal
import stat
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NoReturn

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from client.hospital import FILE, Hospital, read_hospital
from client.privacy.policy import read_policy
from client.trainer import Trainer
from client.trainer_pb2 import Reply as ReplyMessage
from client.trainer_pb2 import Task as TaskMessage
from client.trainer_pb2_grpc import TrainerServicer, add_TrainerServicer_to_server
from client.wire import LIMITS, SPENT_MARK, read_task, reply_message
from protocol.errors import BudgetError, DeploymentError, FedURWKVError
from protocol.lock import hold
from protocol.messages import Reply, Task
from protocol.settings import Table
from protocol.version import code_digest

log = logging.getLogger("fedurwkv.site")

CALLS = 4
"""Calls served side by side: one computes, the others wait or ask for health."""

LONGEST_SOCKET = 100
"""Characters of a socket's path; the kernel takes 107 (unix(7))."""

LONGEST_REASON = 1000
"""Characters of a reason that a call carries back."""

STUDIES = "studies"
"""Folder in the hospital's state: what it remembers of each study, in a folder of its own."""

LOCK = "service.lock"
"""File in the hospital's state, held by the one trainer."""

STOP_SECONDS = 5.0
"""Seconds that a task gets to end once the service stops."""


class TrainerService(TrainerServicer):
    """Answers one task at a time; a call that ends early, by its deadline or its caller's death, ends its task.

    Args:
        hospital: whose data, device and allow-list these are.
        make: makes the trainer for a run's settings and what tells its study from every other.
    """

    def __init__(self, hospital: Hospital, make: Callable[[Table, str], Trainer]) -> None:
        self._hospital = hospital
        self._make = make
        self._trainer: Trainer | None = None
        self._run = ("", "", b"")
        self._lock = threading.Lock()
        # one thread for all computing, because torch sets its CPU threads by the thread that asks
        self._worker = ThreadPoolExecutor(1, "trainer")

    def Answer(self, request: TaskMessage, context: grpc.ServicerContext) -> ReplyMessage:
        if request.code != code_digest():
            self._refuse(
                context,
                f"{self._hospital.name} runs another version of the code than the coordinator"
                f" ({code_digest()[:12]} here, {request.code[:12] or 'none'} there); install the study's version",
            )
        if request.site not in ("", self._hospital.name):
            log.warning(
                "refused by the coordinator: this hospital's key is enrolled as %r, and %s says name: %s;"
                " write the enrolled name there and start again",
                *(request.site, self._hospital.folder / FILE, self._hospital.name),
            )
        over = threading.Event()
        work = self._worker.submit(self._work, read_task(request), over)
        context.add_callback(lambda: self._end(work, over))
        try:
            return work.result()
        except FedURWKVError as error:
            if isinstance(error, BudgetError):
                context.set_trailing_metadata((SPENT_MARK,))
            self._refuse(context, str(error))
        except CancelledError:
            context.abort(grpc.StatusCode.CANCELLED, "the round was over before the task began")
        except Exception as error:
            log.exception("a fault of the program")
            last = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{Path(last.filename).name}:{last.lineno}"
            # the error's own words stay in the log: they may name a file, and files are named after patients
            words = f"a fault of the site's program ({type(error).__name__}, {where}): its log says more"
            context.abort(grpc.StatusCode.INTERNAL, words)
        raise AssertionError("abort raises")

    def close(self) -> None:
        """Give up the task under way, and every later one."""
        with self._lock:
            if self._trainer is not None:
                self._trainer.stop()
        self._worker.shutdown(wait=False, cancel_futures=True)

    def _refuse(self, context: grpc.ServicerContext, reason: str) -> NoReturn:
        log.warning("refused: %s", reason)
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, reason[:LONGEST_REASON])
        raise AssertionError("abort raises")

    def _end(self, work: "Future[ReplyMessage]", over: threading.Event) -> None:
        """The call has ended, well or early."""
        if work.cancel() or work.done():
            return
        with self._lock:
            over.set()
            if self._trainer is not None:
                self._trainer.stop()
        log.warning("the round is over, or its courier is gone: its task is given up")

    def _work(self, task: Task, over: threading.Event) -> ReplyMessage:
        trainer = self._trainer_for(task.settings, task.study)
        try:
            if over.is_set():
                trainer.stop()
            reply = trainer.answer(task)
        finally:
            with self._lock:
                if over.is_set():  # a stopped trainer stays stopped: the next task gets a fresh one
                    self._trainer = None
        log.info("%s", _told(task, reply))
        return reply_message(reply)

    def _trainer_for(self, table: Table, study: str) -> Trainer:
        """The trainer of the study with these settings, warm when it answered the last task too.

        A site.yaml that was changed since then holds from this task on.
        """
        path = self._hospital.folder / FILE
        run = (json.dumps(table, sort_keys=True), study, path.read_bytes() if path.is_file() else b"")
        if self._trainer is None or run != self._run:
            with self._lock:
                self._trainer = None  # frees the memory of the last run before the next takes it
            trainer = self._make(table, study)
            with self._lock:
                self._trainer, self._run = trainer, run
        return self._trainer


def own_settings(hospital: Hospital, settings: Table) -> Table:
    """A run's settings as the hospital follows them: device and threads are its own."""
    return settings | {"train.device": hospital.device, "train.threads": hospital.threads}


def make_trainer(hospital: Hospital, settings: Table, study: str) -> Trainer:
    """The hospital's trainer for one study, whose name the coordinator chose: it becomes no part of a path."""
    memory = hospital.state / STUDIES / hashlib.sha256(study.encode()).hexdigest()[:16]
    policy = read_policy(hospital.folder)
    return Trainer(hospital.data, own_settings(hospital, settings), policy, state=memory, name=hospital.name)


@contextlib.contextmanager
def serve(hospital: Hospital, make: Callable[[Table, str], Trainer]) -> Iterator[None]:
    """Serve the hospital's trainer on its socket inside the `with`.

    Raises:
        DeploymentError: the socket's path is too long, its folder is another user's, or it cannot be opened.
        RunError: another trainer of this hospital is running.
    """
    socket = hospital.socket
    if len(str(socket)) > LONGEST_SOCKET:
        raise DeploymentError(
            f"the path of the trainer's socket, {socket}, has more than {LONGEST_SOCKET} characters;"
            " name a shorter folder under state in site.yaml"
        )
    socket.parent.mkdir(parents=True, exist_ok=True)
    if socket.parent.stat().st_uid != os.geteuid():
        raise DeploymentError(f"{socket.parent} belongs to another user; remove it, or start as that user")
    socket.parent.chmod(stat.S_IRWXU)
    # not beside the socket, where the coordinator's code writes: a link of its making would be followed
    with hold(hospital.state / LOCK, f"another trainer of {hospital.name} is running"):
        service = TrainerService(hospital, make)
        server = grpc.server(ThreadPoolExecutor(CALLS, "call"), options=LIMITS)
        add_TrainerServicer_to_server(service, server)
        health = HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        before = os.umask(0o177)
        try:
            server.add_insecure_port(f"unix:{socket}")
        except RuntimeError as error:
            raise DeploymentError(f"the trainer's socket {socket} cannot be opened: {error}") from error
        finally:
            os.umask(before)
        server.start()
        health.set("fedurwkv.Trainer", health_pb2.HealthCheckResponse.SERVING)
        try:
            yield
        finally:
            health.enter_graceful_shutdown()
            service.close()
            server.stop(STOP_SECONDS).wait()


def main() -> None:
    """Serve the hospital in the folder that the first argument names, until SIGTERM or SIGINT."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s trainer: %(message)s")
    end = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: end.set())
    try:
        hospital = read_hospital(Path(sys.argv[1]))
        with serve(hospital, partial(make_trainer, hospital)):
            log.info("serves %s on %s", hospital.name, hospital.socket)
            end.wait()
    except FedURWKVError as error:
        sys.exit(f"error: {error}")


def _told(task: Task, reply: Reply) -> str:
    """One line on what was done."""
    seconds = sum(value for name, value in reply.scalars.items() if name.startswith("seconds."))
    return f"{task.kind} of round {task.round} took {seconds:.1f} s; {len(reply.model):,} bytes of model go back"


if __name__ == "__main__":
    main()
