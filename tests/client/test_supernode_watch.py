"""The watch over real processes: a SuperNode with its SuperExec, and what couriers are children of."""

import os
import signal
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from flwr.app import Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import Status
from flwr.supercore.constant import TaskType
from flwr.supercore.corestate import in_memory_corestate
from flwr.supercore.date import now
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState

from client import supernode_watch
from client.program import Program
from client.supernode_watch import SuperNodeWatch
from protocol import superexec
from protocol.superexec import PROGRAM, children
from tests.client.test_supervisor import SLEEP
from tests.protocol.test_superexec import write_superexec
from tests.waiting import wait

LOST = supernode_watch.LOST_SECONDS

FAMILY = """
import subprocess, sys, time
subprocess.Popen(sys.argv[1:])
time.sleep(600)
"""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_watch, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(supernode_watch, "LOST_SECONDS", 0.2)


def program(folder: Path, *child: str) -> Program:
    """A program that sleeps, beside a child of its own where one is given."""
    words = [sys.executable, "-S", "-u", "-c", *((FAMILY, *child) if child else (SLEEP,))]
    return Program("p", lambda: words, folder / "log", dict(os.environ))


@pytest.fixture
def supernode(tmp_path: Path) -> Iterator[Program]:
    """With a SuperExec."""
    yield from started(program(tmp_path, write_superexec(tmp_path)), PROGRAM)


@pytest.fixture
def idle(tmp_path: Path) -> Iterator[Program]:
    """What couriers are children of; it has none."""
    yield from started(program(tmp_path))


@pytest.fixture
def busy(tmp_path: Path) -> Iterator[Program]:
    """With one courier."""
    yield from started(program(tmp_path, sys.executable, "-S", "-c", SLEEP), sys.executable)


def started(one: Program, child: str = "") -> Iterator[Program]:
    one.start()
    assert one.process is not None
    pid = one.process.pid
    if child:
        wait(lambda: children(pid, Path(child).name))
    yield one
    one.end(signal.SIGKILL)
    one.process.wait()


def told(watch: SuperNodeWatch) -> str:
    """What is told once something is."""
    words: list[str] = []

    def look() -> str:
        words.append(watch.look())
        return words[-1]

    wait(look)
    return words[-1]


def assert_well(watch: SuperNodeWatch) -> None:
    """Nothing is told, though what is amiss would be by now."""
    with pytest.raises(AssertionError):
        wait(watch.look, 1.0)


def test_a_superexec_that_has_ended_is_told_once(supernode: Program, idle: Program) -> None:
    watch = SuperNodeWatch(supernode, idle)
    assert supernode.process is not None
    assert watch.look() == ""
    (executor,) = children(supernode.process.pid, PROGRAM)
    os.kill(executor, signal.SIGKILL)
    assert told(watch) == "its flower-superexec has ended"
    assert watch.look() == ""


def test_a_message_that_no_courier_works_at_is_lost_after_a_while(supernode: Program, idle: Program) -> None:
    watch = SuperNodeWatch(supernode, idle)
    watch.look()
    watch.hear("INFO :      Received successfully")
    assert watch.look() == ""  # one may be on its way
    assert told(watch) == "a courier has ended without an answer"
    assert watch.look() == ""


@pytest.mark.parametrize(
    "said", [["Received successfully", "Sending: train message"], ["Receiving: train message"], []]
)
def test_where_no_answer_is_due_no_courier_is_missed(supernode: Program, idle: Program, said: list[str]) -> None:
    watch = SuperNodeWatch(supernode, idle)
    watch.look()
    for line in said:
        watch.hear(line)
    assert_well(watch)


def test_a_courier_may_take_its_time(supernode: Program, busy: Program) -> None:
    watch = SuperNodeWatch(supernode, busy)
    watch.look()
    watch.hear("Received successfully")
    assert_well(watch)


def test_a_courier_is_found_among_the_superexecs_children_too(
    supernode: Program, idle: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert supernode.process is not None
    (executor,) = children(supernode.process.pid, PROGRAM)
    monkeypatch.setattr(
        supernode_watch, "children", lambda pid, name="": [1] if pid == executor else children(pid, name)
    )
    watch = SuperNodeWatch(supernode, idle)
    watch.look()
    watch.hear("Received successfully")
    assert_well(watch)


def test_a_supernode_that_was_started_anew_has_nothing_to_answer(supernode: Program, idle: Program) -> None:
    watch = SuperNodeWatch(supernode, idle)
    watch.look()
    watch.hear("Received successfully")
    assert supernode.process is not None
    supernode.end(signal.SIGKILL)
    supernode.process.wait()
    supernode.start()
    assert_well(watch)


def test_a_message_that_comes_before_the_new_supernode_was_looked_at_is_missed_too(
    supernode: Program, idle: Program
) -> None:
    watch = SuperNodeWatch(supernode, idle)
    watch.hear("Received successfully")
    assert told(watch) == "a courier has ended without an answer"


def test_what_was_left_of_a_dead_supernodes_words_is_nothing(supernode: Program, idle: Program) -> None:
    watch = SuperNodeWatch(supernode, idle)
    process, supernode.process = supernode.process, None
    watch.hear("Received successfully")
    supernode.process = process
    assert_well(watch)


def test_each_message_has_the_whole_time(supernode: Program, idle: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_watch, "LOST_SECONDS", 0.0)
    watch = SuperNodeWatch(supernode, idle)
    for _ in range(10):
        watch.hear("Received successfully")
        assert watch.look() == ""
        watch.hear("Sending: train message")  # and no look in between
    watch.hear("Received successfully")
    assert told(watch)


def test_where_no_process_is_seen_no_courier_is_missed(idle: Program, busy: Program) -> None:
    watch = SuperNodeWatch(busy, idle)  # no SuperExec among its children
    watch.hear("Received successfully")
    assert_well(watch)


@pytest.mark.parametrize(("began", "got", "seconds"), [(False, False, 30), (True, True, 60), (True, False, None)])
def test_flower_has_the_time_to_mend_itself_what_it_mends(
    began: bool, got: bool, seconds: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its node state over a courier that ended: before it began, and with and without its message."""
    state = InMemoryNodeState(InMemoryObjectStore())
    state.store_message(make_message(Metadata(1, "a", 0, 1, "", "1", 0.0, 600.0, "train"), RecordDict()))
    task = state.create_task(TaskType.CLIENT_APP, 1)
    assert task is not None
    assert state.claim_task(task)
    assert not began or state.activate_task(task)
    assert not got or state.get_messages_legacy(run_ids=[1], is_reply=False)

    def is_mended(after: float) -> bool:
        later = now() + timedelta(seconds=after)
        monkeypatch.setattr(in_memory_corestate, "now", lambda: later)
        answered = bool(state.get_messages_legacy(is_reply=True))
        return answered or state.get_tasks(task_ids=[task])[0].status.status == Status.PENDING

    assert not is_mended((seconds or LOST) - 1)
    assert is_mended((seconds or LOST) + 1) == (seconds is not None)
    assert seconds is None or seconds + 20 < LOST
