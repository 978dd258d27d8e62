"""`fedurwkv site start`: the hospital's trainer and Flower's SuperNode, kept running until SIGTERM.

What dies is started again, after a pause that doubles up to a minute. What happened is one line on standard error
each; the two programs' own words go to logs in the state folder.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from client.connection import check_words, reach
from client.hospital import Hospital
from protocol.atomic import write_atomic
from protocol.errors import FedURWKVError
from protocol.lock import hold
from protocol.settings import ROOT

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before what died is started again: the first time, and at most."""

STEADY_SECONDS = 120.0
"""Seconds of running after which the next pause is the shortest again."""

STOP_SECONDS = 10.0
LOOK_EVERY = 0.2

LARGEST_LOG = 10 * 2**20
"""Bytes of a log from which it is put aside at the next start; one older is kept."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent dies, however that dies."""

TOLD = (
    ("SuperNode ID:", "connected"),
    ("Connection successful", "connected"),
    ("Connection attempt failed", "reconnecting"),
    ("handshake error", "refused"),
)
"""What the SuperNode says, and what that means."""


@dataclass
class Program:
    """A program that is kept running: its command, its log, and what is to be done with each of its lines."""

    name: str
    command: Callable[[], list[str]]
    log: Path
    environment: dict[str, str]
    heard: Callable[[str], None] = lambda line: None
    process: "subprocess.Popen[str] | None" = None
    pause: float = SHORTEST_PAUSE
    began: float = 0.0
    again: float = 0.0
    last: list[str] = field(default_factory=list)

    def start(self) -> None:
        """Start it, in a session of its own, so that its whole family can be ended."""
        if self.log.is_file() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        self.began, self.last = time.monotonic(), []
        self.process = subprocess.Popen(
            self.command(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
            text=True,
            errors="replace",
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )
        threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True).start()

    def died(self) -> int | None:
        """Its exit code once it has died; the time of its next start is set then."""
        if self.process is None or (code := self.process.poll()) is None:
            return None
        self.end(signal.SIGKILL)
        self.process = None
        if time.monotonic() - self.began > STEADY_SECONDS:
            self.pause = SHORTEST_PAUSE
        self.again = time.monotonic() + self.pause
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return code

    def end(self, sign: signal.Signals) -> None:
        """Send a signal to its whole family."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, sign)

    def _read(self, lines: IO[str]) -> None:
        with self.log.open("a") as log, lines:
            for line in lines:
                log.write(line)
                log.flush()
                self.last = [*self.last[-19:], line.strip()]
                self.heard(line)


class Supervisor:
    """Keeps a hospital's two programs running.

    Args:
        hospital: whose.
        say: takes one line for each thing that happened.
    """

    def __init__(self, hospital: Hospital, say: Callable[[str], None]) -> None:
        self.hospital = hospital
        self.say = say
        self.connection = "connecting"
        self._end = threading.Event()
        state = hospital.state
        service = [
            sys.executable,
            "-P",
            "-m",
            "client.service",
            str(hospital.folder),
        ]  # -P: not what lies in this folder
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        self.trainer = Program("trainer", lambda: service, state / "trainer.log", environment, self._hear_trainer)
        self.supernode = Program(
            "supernode", self._supernode, state / "supernode.log", _flower(state / "flower"), self._hear_supernode
        )
        self.programs = (self.trainer, self.supernode)

    def run(self) -> None:
        """Keep both running until `stop`.

        Raises:
            DeploymentError: the coordinator, the CA certificate or the key is not there.
            RunError: this hospital is running already.
        """
        check_words(self.hospital)
        self.hospital.state.mkdir(parents=True, exist_ok=True)
        with hold(self.hospital.state / "lock", f"{self.hospital.name} is running already"):
            try:
                for program in self.programs:
                    program.start()
                self._note()
                while not self._end.wait(LOOK_EVERY):
                    self._look()
            finally:
                self._stop()
        self.say("stopped")

    def stop(self) -> None:
        """End both, also in the middle of a round."""
        self._end.set()

    def _look(self) -> None:
        for program in self.programs:
            code = program.died()
            if code is not None:
                self.say(f"the {program.name} ended with code {code}{self._why(program)} (it is started again)")
            if program.process is None and time.monotonic() >= program.again and not self._end.is_set():
                program.start()
                self._note()

    def _why(self, program: Program) -> str:
        """Why a program died, in a few words."""
        if program is self.supernode:
            self._connect("not connected")
            try:
                reach(self.hospital)
            except FedURWKVError as error:
                return f": {error}"
        errors = [line for line in program.last if line.startswith(("error:", "ERROR"))]
        return f": {errors[-1].removeprefix('error: ')}" if errors else f"; see {program.log}"

    def _hear_trainer(self, line: str) -> None:
        if " trainer: " in line:
            self.say(line.partition(" trainer: ")[2].strip())

    def _hear_supernode(self, line: str) -> None:
        for words, state in TOLD:
            if words in line:
                self._connect(state)

    def _connect(self, state: str) -> None:
        if state != self.connection:
            self.connection = state
            self.say(f"{state}: {self.hospital.coordinator}")
            self._note()

    def _note(self) -> None:
        """Write what `fedurwkv site status` reads."""
        pids = {program.name: program.process.pid for program in self.programs if program.process}
        words = {"pid": os.getpid(), "connection": self.connection, "since": time.time(), **pids}
        write_atomic(self.hospital.state / "running.json", json.dumps(words))

    def _supernode(self) -> list[str]:
        hospital = self.hospital
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        program = str(Path(sys.executable).parent / "flower-supernode")
        words = ["--superlink", hospital.coordinator, "--root-certificates", str(hospital.ca)]
        words += ["--auth-supernode-private-key", str(hospital.key), "--host", "127.0.0.1", "--port", str(port)]
        return [program, *words, "--node-config", f'trainer="{hospital.socket}"']

    def _stop(self) -> None:
        """End both programs, the courier first, so that no task comes to a trainer that is going."""
        for program in reversed(self.programs):
            program.end(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for program in self.programs:
            if program.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.process.wait(max(0.0, until - time.monotonic()))
                program.end(signal.SIGKILL)
                program.process.wait()
        (self.hospital.state / "running.json").unlink(missing_ok=True)


def _flower(home: Path) -> dict[str, str]:
    """The SuperNode's environment: its home, its programs, no calls to anybody but the coordinator."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1"}
    home.mkdir(parents=True, exist_ok=True)
    # SuperExec asks for work every so many seconds; its default of 1 would be half of a short round
    return os.environ | quiet | {"FLWR_HOME": str(home), "PATH": path, "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05"}


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
