"""`coordinator start` over a real process in the SuperLink's place; `deployment` has Flower's own."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocol import superexec
from protocol.errors import DeploymentError
from protocol.superexec import PROGRAM, children
from server import coordinator
from server.study import Study, make_study
from tests.protocol.test_superexec import PARENT, write_superexec
from tests.waiting import wait


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", ["a"])


@pytest.fixture
def superlink(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """What `coordinator start` takes for the SuperLink that it has started."""
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(coordinator, "LOOK_EVERY", 0.05)
    command = [sys.executable, "-S", "-c", PARENT, write_superexec(tmp_path)]
    process = subprocess.Popen(command, start_new_session=True)
    monkeypatch.setattr(coordinator, "_spawn", lambda study: process)
    monkeypatch.setattr(coordinator, "_wait_for", lambda *words: wait(lambda: children(process.pid, PROGRAM)))
    monkeypatch.setattr(coordinator, "enrol", lambda study: None)
    before = {sign: signal.getsignal(sign) for sign in (signal.SIGTERM, signal.SIGINT)}
    yield process
    for sign, handler in before.items():
        signal.signal(sign, handler)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_superlink_whose_superexec_has_ended_is_ended_with_an_error(
    study: Study, superlink: "subprocess.Popen[bytes]"
) -> None:
    def kill() -> None:
        wait(lambda: children(superlink.pid, PROGRAM))
        os.kill(children(superlink.pid, PROGRAM)[0], signal.SIGKILL)

    threading.Timer(0.5, kill).start()
    with pytest.raises(DeploymentError, match="SuperExec has ended"):
        coordinator.start(study)
    assert superlink.returncode == -signal.SIGTERM


def test_a_superlink_that_ends_is_not_said_to_have_lost_its_superexec(
    study: Study, superlink: "subprocess.Popen[bytes]"
) -> None:
    threading.Timer(0.5, superlink.kill).start()
    with pytest.raises(DeploymentError, match="ended by itself with code -9"):
        coordinator.start(study)
