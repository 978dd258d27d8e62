"""`fedurwkv coordinator start`: the SuperLink of a study, in the foreground, from start to SIGTERM."""

import contextlib
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

from protocol.errors import DeploymentError
from protocol.flower import environment
from protocol.lock import hold
from protocol.settings import ROOT
from protocol.superexec import SuperExecWatch
from server.certificates import days_left
from server.study import Study
from server.superlink import Control

START_SECONDS = 120.0
STOP_SECONDS = 15.0

LOOK_EVERY = 0.5
"""Seconds between two looks at the SuperLink and at who was refused."""

PAGE_BYTES = 65536
"""Of a page of Flower's database, which holds models while they travel, in pieces of 5 MiB: with SQLite's own 4096 a
piece costs three times the work."""

SOON = 30
"""Days before its end from which a certificate is warned of."""


def start(study: Study) -> None:
    """Serve the study until SIGTERM or SIGINT; the folder's `sites/` say who is admitted.

    Raises:
        DeploymentError: the certificate has expired, or the SuperLink did not start, or it or its SuperExec ended by
            itself.
        RunError: this study is being served already.
    """
    end = threading.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: end.set())
    _check_certificate(study)
    study.flower.mkdir(exist_ok=True)
    study.refusals.touch()
    with hold(study.folder / "lock", f"{study.folder} is being served already"), study.refusals.open() as refusals:
        refusals.seek(0, 2)
        process = _spawn(study)
        try:
            _wait_for(study, process, end)
            if not end.is_set():
                enrol(study)
                _say(f"serves {', '.join(study.hosts)} on {study.listen}:{study.port}; sites: {_names(study)}")
            executor = SuperExecWatch()
            while not end.wait(LOOK_EVERY) and process.poll() is None:
                for line in refusals:
                    _say(line.partition(" ")[2].strip())
                if executor.ended(process.pid):
                    raise DeploymentError(
                        "the SuperLink's SuperExec has ended, without which no run starts: start again"
                    )
        finally:
            _stop(process)
        if not end.is_set():
            raise DeploymentError(
                f"the SuperLink ended by itself with code {process.returncode}; see {log_of(study)}"
            )
    _say("stopped")


def enrol(study: Study) -> None:
    """Make the running SuperLink admit the study's sites, and nobody else.

    Raises:
        DeploymentError: no SuperLink answers.
    """
    admitted = study.admitted()
    with Control(study.local_address, study.ca) as control:
        nodes = control.nodes()
        for node in nodes:
            if not any(node.key.line == key.line for key in admitted.values()):
                control.expel(node.id)
        known = {node.key.line for node in nodes}
        for name, key in admitted.items():
            if key.line not in known:
                control.admit(name, key)


def is_serving(study: Study) -> bool:
    """Whether the study's SuperLink answers."""
    try:
        with Control(study.local_address, study.ca) as control:
            control.nodes()
    except DeploymentError:
        return False
    return True


def log_of(study: Study) -> Path:
    """The SuperLink's own log."""
    return study.flower / "superlink.log"


def _make_database(path: Path) -> None:
    """Make Flower's database, empty, before Flower does: the size of a page is given once, at the beginning."""
    if not path.exists():
        with contextlib.closing(sqlite3.connect(path)) as database:
            database.execute(f"PRAGMA page_size = {PAGE_BYTES}")
            database.execute("VACUUM")


def _spawn(study: Study) -> "subprocess.Popen[bytes]":
    database = study.flower / "state.db"
    _make_database(database)
    words = ["--host", study.listen, "--port", str(study.port), "--enable-supernode-auth"]
    words += ["--ssl-ca-certfile", str(study.ca), "--ssl-certfile", str(study.certificate)]
    words += ["--ssl-keyfile", str(study.certificate_key), "--database", str(database)]
    words += ["--disable-runtime-dependency-installation"]
    words += ["--health-server-address", study.health] if study.health else []
    with log_of(study).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "server.superlink_process", str(study.folder), *words],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(study.flower) | {"PYTHONPATH": str(ROOT)},
            start_new_session=True,  # Ctrl-C in the terminal is for `start` to answer
        )


def _wait_for(study: Study, process: "subprocess.Popen[bytes]", end: threading.Event) -> None:
    until = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < until and not end.wait(LOOK_EVERY):
        if is_serving(study):
            return
    if not end.is_set():
        raise DeploymentError(f"the SuperLink did not start on {study.listen}:{study.port}; see {log_of(study)}")


def _stop(process: "subprocess.Popen[bytes]") -> None:
    """End the SuperLink and the server apps that it started, which end when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _check_certificate(study: Study) -> None:
    left = days_left(study.certificate)
    cure = f"fedurwkv coordinator renew {study.folder}"
    if left <= 0:
        raise DeploymentError(f"{study.certificate} expired {-left:.0f} days ago; make a new one: {cure}")
    if left < SOON:
        _say(f"{study.certificate} expires in {left:.0f} days; make a new one: {cure}")


def _names(study: Study) -> str:
    return ", ".join(study.admitted()) or "none yet (fedurwkv coordinator enroll)"


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
