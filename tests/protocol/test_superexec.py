"""A parent that starts a SuperExec once and never looks after it, as Flower does."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import superexec
from protocol.superexec import PROGRAM, SuperExecWatch, children
from tests.waiting import wait

PARENT = """
import subprocess, sys, time
for command in sys.argv[1:]:
    subprocess.Popen([command])
time.sleep(600)
"""
CHILD = f"#!{sys.executable}\nimport time; time.sleep(600)\n"


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[int]:
    """A process with a SuperExec and another child."""
    programs = [write_superexec(tmp_path), write_superexec(tmp_path, "other")]
    process = subprocess.Popen([sys.executable, "-S", "-c", PARENT, *programs], start_new_session=True)
    try:
        wait(lambda: len(children(process.pid)) == 2 and children(process.pid, PROGRAM))
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def alone() -> Iterator[int]:
    """A process without children; the tests' own may have some that nobody has buried."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield process.pid
        process.kill()


def write_superexec(folder: Path, name: str = PROGRAM) -> str:
    """The path of a program that does nothing."""
    path = folder / name
    path.write_text(CHILD)
    path.chmod(0o755)
    return str(path)


def test_a_child_that_has_ended_is_none_though_nobody_has_buried_it(parent: int) -> None:
    (executor,) = children(parent, PROGRAM)
    os.kill(executor, signal.SIGKILL)
    wait(lambda: len(children(parent)) == 1)
    assert Path(f"/proc/{executor}").exists()
    assert children(parent, PROGRAM) == []
    assert children(executor) == []


def test_a_process_that_is_gone_has_no_children() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert children(process.pid) == []


def test_a_superexec_has_ended_once_it_was_there_and_is_not(
    parent: int, alone: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    watch = SuperExecWatch()
    assert not watch.ended(alone)  # it has had none
    assert not watch.ended(alone)
    assert not watch.ended(parent)
    (executor,) = children(parent, PROGRAM)
    os.kill(executor, signal.SIGKILL)
    wait(lambda: watch.ended(parent))
    assert not watch.ended(alone)  # another SuperLink, which has not started its own yet


def test_a_superexec_that_ended_before_anybody_looked_has_ended(parent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    (executor,) = children(parent, PROGRAM)
    os.kill(executor, signal.SIGKILL)
    wait(lambda: len(children(parent)) == 1)
    watch = SuperExecWatch()
    assert [watch.ended(parent) for _ in range(3)] == [False, True, True]


def test_a_superexec_that_is_missed_once_has_not_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    looks = [[1], [], [1], [], []]
    monkeypatch.setattr(superexec, "children", lambda process, program: looks.pop(0))
    watch = SuperExecWatch()
    assert [watch.ended(os.getpid()) for _ in range(5)] == [False] * 4 + [True]


@pytest.mark.parametrize(("hidden", "all_children", "named"), [("children", 0, 0), ("stat", 2, 1), ("cmdline", 2, 0)])
def test_processes_that_the_machine_hides_are_not_told_of_and_do_no_harm(
    parent: int, hidden: str, all_children: int, named: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = Path.read_text

    def refuse(path: Path, *words: str, **named: str) -> str:
        if path.name == hidden:
            raise PermissionError(path)
        return read(path, *words, **named)

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    assert (len(children(parent)), len(children(parent, PROGRAM))) == (all_children, named)
    watch = SuperExecWatch()
    assert not any(watch.ended(parent) for _ in range(5))


def test_children_that_any_thread_has_started_are_found() -> None:
    code = "import subprocess, threading, time\n"
    code += "start = lambda: (subprocess.Popen(['sleep', '600']), time.sleep(600))\n"
    code += "threading.Thread(target=start).start(); start()"
    process = subprocess.Popen([sys.executable, "-S", "-c", code], start_new_session=True)
    try:
        wait(lambda: len(children(process.pid, "sleep")) == 2)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_the_processes_are_not_looked_at_all_the_time(parent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []

    def looked(process: int, program: str) -> list[int]:
        looks.append(process)
        return [1]

    monkeypatch.setattr(superexec, "children", looked)
    watch = SuperExecWatch()
    for _ in range(10):
        assert not watch.ended(parent)
    assert looks == [parent]
    assert not watch.ended(os.getpid())
    assert looks == [parent, os.getpid()]
