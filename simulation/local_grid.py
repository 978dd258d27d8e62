"""LocalGrid: Flower's Grid within one process, the fastest way to run a federation on one machine.

Messages pass by reference, nothing is serialised, and each site's trainer keeps its data and network on its
device from round to round. One thread works for each lane, a GPU or some cores; site number i belongs to lane i
modulo their number, so a site always computes on the same one.
"""

import itertools
import math
import queue
import threading
import time
from collections.abc import Callable, Iterable

from flwr.app import Context, Error, Message, RecordDict
from flwr.app.user_config import UserConfig
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode
from flwr.serverapp import Grid
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from protocol.errors import RunError

RUN_ID = 1

ClientApp = Callable[[Message, Context], Message]


class LocalGrid(Grid):
    """Nodes 1 to `sites`, each a ClientApp call in this process.

    Args:
        app: the client app; it is called in the thread of the site's lane.
        sites: how many nodes.
        lanes: how many threads work side by side.
        settings: the run's table, as every node receives it.
    """

    def __init__(self, app: ClientApp, sites: int, lanes: int, settings: UserConfig) -> None:
        TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SUPERLINK_NODE_ID, 1
        self._app = app
        self._run = Run.create_empty(RUN_ID)
        self._contexts = {node: _context(node, sites, settings) for node in range(1, sites + 1)}
        self._queues: list[queue.SimpleQueue[Message | None]] = [queue.SimpleQueue() for _ in range(lanes)]
        self._due: dict[str, float] = {}  # until when a reply is waited for, in seconds since the epoch
        self._replies: dict[str, Message] = {}
        self._news = threading.Condition()
        self._closed = threading.Event()
        self._ids = itertools.count(1)
        self._threads = [threading.Thread(target=self._work, args=(q,), daemon=True) for q in self._queues]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Drop what waits and end the threads; a task under way ends first. Later calls raise RunError."""
        self._closed.set()
        with self._news:
            self._news.notify_all()
        for waiting in self._queues:
            waiting.put(None)
        for thread in self._threads:
            thread.join()

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        self._check_open()
        ids = []
        for message in messages:
            _name(message, f"task-{next(self._ids)}")
            lane = (message.metadata.dst_node_id - 1) % len(self._queues)
            with self._news:
                self._due[message.metadata.message_id] = message.metadata.created_at + message.metadata.ttl
            self._queues[lane].put(message)
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """The replies that have come; waits for one as long as one may still come."""
        return self._pull(set(message_ids), math.inf)

    def _pull(self, asked: set[str], until: float) -> list[Message]:
        with self._news:
            while True:
                self._check_open()
                last = max((self._due[key] for key in asked & self._due.keys()), default=0.0)
                left = min(last, until) - time.time()
                come = [self._replies.pop(key) for key in sorted(asked & self._replies.keys())]
                if come or left <= 0:
                    return come
                self._news.wait(min(left, threading.TIMEOUT_MAX))

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        waiting = set(self.push_messages(messages))
        until = time.time() + (math.inf if timeout is None else timeout)
        replies: list[Message] = []
        while come := self._pull(waiting, until):
            waiting -= {reply.metadata.reply_to_message_id for reply in come}
            replies += come
        return replies

    def _check_open(self) -> None:
        if self._closed.is_set():
            raise RunError("the run was stopped")

    def _work(self, waiting: "queue.SimpleQueue[Message | None]") -> None:
        while (message := waiting.get()) is not None and not self._closed.is_set():
            key = message.metadata.message_id
            reply = self._answer(message) if time.time() <= self._due[key] else None
            with self._news:
                if reply is not None and time.time() <= self._due[key]:  # else nobody waits for it any more
                    self._replies[key] = reply
                del self._due[key]
                self._news.notify_all()

    def _answer(self, message: Message) -> Message:
        try:
            reply = self._app(message, self._contexts[message.metadata.dst_node_id])
        except Exception as error:  # as Flower does: whatever a client app raises is its reply
            code = ErrorCode.CLIENT_APP_RAISED_EXCEPTION
            reply = Message(Error(code, f"{type(error).__name__}: {error}"), reply_to=message)
        _name(reply, f"reply-to-{message.metadata.message_id}")
        return reply


def _context(node: int, sites: int, settings: UserConfig) -> Context:
    config: UserConfig = {"partition-id": node - 1, "num-partitions": sites}
    return Context(RUN_ID, node, config, RecordDict(), settings)


def _name(message: Message, message_id: str) -> None:
    """Give a message its id, which Flower's metadata lets only a grid set."""
    message.metadata.__dict__["_message_id"] = message_id
