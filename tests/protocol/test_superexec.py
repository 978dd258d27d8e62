"""A parent that starts a SuperExec once and never looks after it, as Flower does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from protocol import superexec
from protocol.superexec import PROGRAM, SuperExecWatch, children

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
    programs = [tmp_path / PROGRAM, tmp_path / "other"]
    for path in programs:
        path.write_text(CHILD)
        path.chmod(0o755)
    process = subprocess.Popen([sys.executable, "-S", "-c", PARENT, *map(str, programs)], start_new_session=True)
    try:
        wait(lambda: len(children(process.pid)) == 2 and children(process.pid, PROGRAM))
        yield process.pid
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait(done: Callable[[], object], seconds: float = 20.0) -> None:
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_a_child_that_has_ended_is_none_though_nobody_has_buried_it(parent: int) -> None:
    (executor,) = children(parent, PROGRAM)
    os.kill(executor, signal.SIGKILL)
    wait(lambda: not children(parent, PROGRAM))
    assert Path(f"/proc/{executor}").exists()
    assert len(children(parent)) == 1
    assert children(executor) == []


def test_a_process_that_is_gone_has_no_children() -> None:
    process = subprocess.Popen([sys.executable, "-S", "-c", ""])
    process.wait()
    assert children(process.pid) == []


def test_a_superexec_has_ended_once_it_was_there_and_is_not(parent: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    watch = SuperExecWatch()
    assert not watch.ended(os.getpid())  # it has had none
    assert not watch.ended(os.getpid())
    assert not watch.ended(parent)
    (executor,) = children(parent, PROGRAM)
    os.kill(executor, signal.SIGKILL)
    wait(lambda: watch.ended(parent))
    assert not watch.ended(os.getpid())  # another SuperLink, which has not started its own yet


def test_the_machines_processes_are_not_read_through_all_the_time(
    parent: int, monkeypatch: pytest.MonkeyPatch
) -> None:
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
