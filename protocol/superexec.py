"""Flower's SuperExec, which starts the processes of a run: a SuperLink or a SuperNode starts it once, as a child.

Neither looks after it. Without it both look well and do nothing, so whoever started them has to look.
"""

import contextlib
import time
from pathlib import Path

import psutil

PROGRAM = "flower-superexec"

LOOK_EVERY = 3.0
"""Seconds between two looks; one reads through all processes of the machine."""


class SuperExecWatch:
    """Whether the SuperExec of a process has ended."""

    def __init__(self) -> None:
        self._parent, self._looked = 0, 0.0
        self._seen = self._ended = False

    def ended(self, parent: int) -> bool:
        """Whether process `parent` had a SuperExec and has none any longer, as of the last few seconds."""
        if parent != self._parent:
            self._parent, self._seen, self._ended = parent, False, False
        elif time.monotonic() - self._looked < LOOK_EVERY:
            return self._ended
        self._looked = time.monotonic()
        there = bool(children(parent, PROGRAM))
        self._ended = self._seen and not there
        self._seen = self._seen or there
        return self._ended


def children(parent: int, program: str = "") -> list[int]:
    """The ids of a process's living children; where `program` is given, of those whose command names such a file."""
    found = []
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(parent).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # it has ended, buried or not, since it was listed
                if child.status() != psutil.STATUS_ZOMBIE and (not program or _names(child.cmdline(), program)):
                    found.append(child.pid)
    return found


def _names(command: list[str], program: str) -> bool:
    return program in [Path(word).name for word in command[:2]]  # an interpreter comes before its script
