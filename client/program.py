"""A program that is kept running by its parent, with its whole family of processes and its log."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import IO

from client.prctl import prctl
from client.wall import Wall, stay_behind

SHORTEST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds before what died is started again: the first time, and at most."""

STEADY_SECONDS = 120.0
"""Seconds of running after which the next pause is the shortest again."""

LARGEST_LOG = 10 * 2**20
"""Bytes of a log from which it is put aside at the next start; one older is kept."""

LINES = 20
"""Last lines of a log that are kept in mind."""

PR_SET_PDEATHSIG = 1
"""prctl(2): the signal that a process gets when its parent dies, however that dies."""


@dataclass
class Program:
    """A program that is kept running: its command, log and wall, and what is to be done with each of its lines."""

    name: str
    command: Callable[[], list[str]]
    log: Path
    environment: dict[str, str]
    heard: Callable[[str], None] = lambda line: None
    wall: Wall | None = None
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
        rules = self.wall.build() if self.wall else None
        try:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.environment,
                text=True,
                errors="replace",
                start_new_session=True,
                preexec_fn=partial(_begin, rules),
            )
        finally:
            if rules is not None:
                os.close(rules)
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
                self.last = [*self.last[1 - LINES :], line.strip()]
                self.heard(line)


def _begin(rules: int | None) -> None:
    """In the new process, before its program: die with the parent, and stay behind the wall."""
    prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if rules is not None:
        stay_behind(rules)
