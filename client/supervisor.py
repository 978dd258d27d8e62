"""`fedurwkv site start`: the hospital's trainer, Flower's SuperNode and its couriers, kept running until SIGTERM.

What dies is started again, after a pause that doubles up to a minute. What happened is one line on standard error
each; the programs' own words go to logs in the state folder.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from client import flower, warm_courier
from client.connection import check_words, reach
from client.hospital import Hospital
from client.privacy.budget import check_readiness
from client.privacy.promise import void_promise
from client.program import Program
from client.run_watch import RunWatch
from client.supernode_watch import SuperNodeWatch
from protocol.atomic import write_atomic
from protocol.errors import FedURWKVError, LedgerError, PolicyError
from protocol.lock import hold
from protocol.settings import ROOT

TRAINER, CONNECTION = PARTS = ("trainer", "connection")
"""What can run in a place of its own: the trainer with the data, and the connection with the key."""

STOP_SECONDS = 10.0
LOOK_EVERY = 0.2

TOLD = (
    ("SuperNode ID:", "connected"),
    ("Connection successful", "connected"),
    ("Connection attempt failed", "reconnecting"),
    ("handshake error", "refused"),
)
"""What the SuperNode says, and what that means."""


class Supervisor:
    """Keeps a hospital's programs running.

    Args:
        hospital: whose.
        say: takes one line for each thing that happened.
        part: "trainer" or "connection", where each runs in a place of its own; "" for both.
    """

    def __init__(self, hospital: Hospital, say: Callable[[str], None], part: str = "") -> None:
        self.part = part
        self.hospital = hospital
        self.say = say
        self.connection = "connecting"
        self._end = threading.Event()
        state = hospital.state
        # -P: this installation's code, whatever lies in the working directory
        service = [sys.executable, "-P", "-m", "client.service", str(hospital.folder)]
        ours = os.environ | {"PYTHONPATH": str(ROOT)}
        theirs, wall = flower.environment(hospital), flower.wall(hospital)
        self.trainer = Program("trainer", lambda: service, state / "trainer.log", ours, self._hear_trainer)
        self.courier = Program("courier", lambda: _courier(hospital), state / "courier.log", theirs, wall=wall)
        self.supernode = Program(
            "supernode", self._supernode, state / "supernode.log", theirs, self._hear_supernode, wall
        )
        self._watch = SuperNodeWatch(self.supernode, self.courier)
        parts = {TRAINER: (self.trainer,), CONNECTION: (self.courier, self.supernode)}
        self.programs: tuple[Program, ...] = parts[part] if part else (*parts[TRAINER], *parts[CONNECTION])

    def run(self) -> None:
        """Keep them running until `stop`.

        Raises:
            DeploymentError: the coordinator, the CA certificate or the key is not there.
            RunError: this hospital is running already.
        """
        if self.part != TRAINER:
            check_words(self.hospital)
        self.hospital.state.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as locks:
            for part in [self.part] if self.part else PARTS:
                lock = self.hospital.state / f"{part}.lock"
                locks.enter_context(hold(lock, f"the {part} of {self.hospital.name} is running already"))
            self.hospital.socket.parent.mkdir(mode=0o700, exist_ok=True)
            if self.part != TRAINER:
                locks.enter_context(RunWatch(self.hospital, self.say))
            warm_courier.write_launcher(self.hospital.state / flower.PROGRAMS, _couriers(self.hospital))
            (self.hospital.state / flower.HOME).mkdir(exist_ok=True)
            self._warn()
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
        """End them, also in the middle of a round."""
        self._end.set()

    def _warn(self) -> None:
        """Say what will have the trainer refuse every task, or break a promise, or stands open."""
        if self.part != TRAINER:
            for words in flower.holes(self.hospital, self.supernode.wall):
                self.say(f"warning: {words}")
        if self.trainer in self.programs:
            try:
                policy = check_readiness(self.hospital.folder, asked=False)
            except (LedgerError, PolicyError) as error:
                self.say(f"nothing can be trained yet: {error}")
                return
            if words := void_promise(policy):
                self.say(f"warning: {words}")

    def _look(self) -> None:
        for program in self.programs:
            code = program.died()
            if code is not None:
                self.say(f"the {program.name} ended with code {code}{self._why(program)} (it is started again)")
            if program.process is None and time.monotonic() >= program.again and not self._end.is_set():
                program.start()
                self._note()
        if ill := self._watch.look():
            self.say(f"the supernode is of no use: {ill}")
            self.supernode.end(signal.SIGTERM)

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
        self._watch.hear(line)
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
        words: dict[str, object] = {"pid": os.getpid(), "since": time.time(), **pids}
        if self.part != TRAINER:
            words["connection"] = self.connection
        write_atomic(self._noted(), json.dumps(words))

    def _noted(self) -> Path:
        return self.hospital.state / f"running{self.part and '-'}{self.part}.json"

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
        """End them, the SuperNode first, so that no task comes to a trainer that is going."""
        for program in reversed(self.programs):
            program.end(signal.SIGTERM)
        until = time.monotonic() + STOP_SECONDS
        for program in self.programs:
            if program.process is not None:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    program.process.wait(max(0.0, until - time.monotonic()))
                program.end(signal.SIGKILL)
                program.process.wait()
        self._noted().unlink(missing_ok=True)


def _courier(hospital: Hospital) -> list[str]:
    return [sys.executable, str(Path(warm_courier.__file__)), str(_couriers(hospital))]


def _couriers(hospital: Hospital) -> Path:
    """The socket on which courier processes are asked for."""
    return hospital.socket.with_name("couriers")
