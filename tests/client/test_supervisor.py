"""The supervisor over real programs in the place of the trainer and of Flower's."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from client import supernode_watch
from client.hospital import Hospital
from client.privacy.ledger import Ledger
from client.program import Program
from client.site_status import running
from client.supervisor import CONNECTION, PARTS, TRAINER, Supervisor
from protocol import superexec
from protocol.errors import DeploymentError, RunError
from protocol.superexec import PROGRAM, children
from tests.client.hospitals import PRIVACY, hospital_at
from tests.client.privacy.test_ledger import ASKED, ROUND, WIDE
from tests.protocol.test_superexec import write_superexec
from tests.waiting import wait

SLEEP = "import time; time.sleep(600)"


@pytest.fixture
def hospital(folder: Path) -> Hospital:
    return hospital_at(folder / "h", folder)


def instead(program: Program, code: str) -> None:
    """Have a program be this Python code, which may lie anywhere."""
    program.wall = None
    program.command = lambda: [sys.executable, "-S", "-u", "-c", code]


@contextmanager
def kept_running(supervisor: Supervisor) -> Iterator[None]:
    thread = threading.Thread(target=supervisor.run)
    thread.start()
    try:
        yield
    finally:
        supervisor.stop()
        thread.join(30)
        assert not thread.is_alive()


def test_what_dies_is_named_with_its_reason_and_started_again(hospital: Hospital) -> None:
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append, TRAINER)
    instead(supervisor.trainer, "print('error: the disk is full'); raise SystemExit(3)")
    supervisor.trainer.pause = 0.1
    with kept_running(supervisor):
        wait(lambda: len(said) >= 2)
    assert said[:2] == ["the trainer ended with code 3: the disk is full (it is started again)"] * 2
    assert said[-1] == "stopped"


def test_stopping_ends_all_programs_and_leaves_no_note(hospital: Hospital) -> None:
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append, TRAINER)
    instead(supervisor.trainer, SLEEP)
    with kept_running(supervisor):
        wait(lambda: running(hospital).get("trainer"))
        pid = running(hospital)["trainer"]
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert not Path(f"/proc/{pid}").exists()
    assert running(hospital) == {}
    assert said == ["stopped"]


def test_a_hospital_runs_once(hospital: Hospital) -> None:
    first = Supervisor(hospital, lambda line: None, TRAINER)
    instead(first.trainer, SLEEP)
    with kept_running(first):
        wait(lambda: running(hospital))
        with pytest.raises(RunError, match=r"the trainer of .* is running already"):
            Supervisor(hospital, lambda line: None, TRAINER).run()


def test_a_connection_needs_a_coordinator_and_the_trainer_alone_does_not(hospital: Hospital) -> None:
    for part in ("", CONNECTION):
        with pytest.raises(DeploymentError, match="names no coordinator yet"):
            Supervisor(hospital, lambda line: None, part).run()
    assert not running(hospital)


def test_what_the_supernode_says_is_told_once_a_change(hospital: Hospital) -> None:
    hospital.state.mkdir()
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append)
    for line in (
        "INFO: SuperNode ID: 7",
        "Connection successful",
        "x",
        "Connection attempt failed, retrying",
        "TLS handshake error",
    ):
        supervisor.supernode.heard(line)
    assert [line.partition(":")[0] for line in said] == ["connected", "reconnecting", "refused"]
    noted = json.loads((hospital.state / "running.json").read_text())
    assert noted["connection"] == "refused"


def test_a_supernode_without_its_superexec_is_ended(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supernode_watch, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(superexec, "LOOK_EVERY", 0.0)
    said: list[str] = []
    hospital = hospital_at(folder / "h", folder)
    hospital.state.mkdir()
    supervisor = Supervisor(hospital, said.append, CONNECTION)
    supervisor.programs = (supervisor.supernode,)
    instead(supervisor.supernode, f"import subprocess; subprocess.Popen({write_superexec(folder)!r}); {SLEEP}")
    supervisor.supernode.start()
    process = supervisor.supernode.process
    assert process is not None
    wait(lambda: children(process.pid, PROGRAM))
    supervisor._look()
    os.kill(children(process.pid, PROGRAM)[0], signal.SIGKILL)
    wait(lambda: supervisor._look() or said)
    assert said == [f"the supernode is of no use: its {PROGRAM} has ended"]
    assert process.wait(20) == -signal.SIGTERM


def test_what_the_supernode_says_is_heard_by_its_watch(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []
    supervisor = Supervisor(hospital, lambda line: None)
    monkeypatch.setattr(supervisor._watch, "hear", heard.append)
    supervisor.supernode.heard("INFO :      Received successfully")
    assert heard == ["INFO :      Received successfully"]


def test_a_dead_supernode_is_explained_by_the_way_to_the_coordinator(folder: Path) -> None:
    hospital = hospital_at(folder / "h", folder, coordinator="nowhere.invalid:9092")
    hospital.state.mkdir()
    supervisor = Supervisor(hospital, lambda line: None)
    assert "CA certificate" in supervisor._why(supervisor.supernode)
    assert supervisor.connection == "not connected"


def test_the_trainers_words_are_passed_on_without_their_time(hospital: Hospital) -> None:
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append)
    supervisor.trainer.heard("2026-11-24 16:00:00,000 trainer: train of round 1 took 3 s\n")
    supervisor.trainer.heard("a library's own line\n")
    assert said == ["train of round 1 took 3 s"]


@pytest.mark.usefixtures("own_user")
@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_missing_ledger_is_told_where_the_trainer_starts(folder: Path, part: str) -> None:
    hospital = hospital_at(folder / "h", folder, privacy=PRIVACY)
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append, part)
    supervisor._warn()
    assert [line.partition(":")[0] for line in said] == ["nothing can be trained yet"] * (part != CONNECTION)
    Ledger(hospital.folder / "privacy").open()
    said.clear()
    supervisor._warn()
    assert said == []


@pytest.mark.usefixtures("own_user")
@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_promise_that_training_without_privacy_breaks_is_told_where_the_trainer_starts(
    folder: Path, part: str
) -> None:
    hospital = hospital_at(folder / "h", folder)
    ledger = Ledger(hospital.folder / "privacy")
    ledger.open()
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append, part)
    supervisor._warn()
    assert said == []
    ledger.spend(ASKED, ROUND, "patient", 50, WIDE)
    supervisor._warn()
    assert [line.partition(" in ")[0] for line in said] == ["warning: privacy.unit = none"] * (part != CONNECTION)


def test_the_supernode_gets_this_hospitals_key_and_the_trainers_socket_and_no_more(folder: Path) -> None:
    hospital = hospital_at(folder / "h", folder, coordinator="study.example.org:9092")
    program = Supervisor(hospital, lambda line: None, CONNECTION).supernode
    words = program.command()
    pairs = dict(zip(words[1::2], words[2::2], strict=False))
    assert pairs["--superlink"] == "study.example.org:9092"
    assert (pairs["--root-certificates"], pairs["--auth-supernode-private-key"]) == (
        str(hospital.ca),
        str(hospital.key),
    )
    assert pairs["--host"] == "127.0.0.1"
    assert pairs["--node-config"] == f'trainer="{hospital.socket}"'
    assert program.environment["FLWR_TELEMETRY_ENABLED"] == "0"
