"""Flower's SuperExec, which starts the processes of a run: a SuperLink or a SuperNode starts it once, as a child.

Neither looks after it. Without it both look well and do nothing, so whoever started them has to look.
"""

import contextlib
import time
from pathlib import Path

PROGRAM = "flower-superexec"

LOOK_EVERY = 3.0
"""Seconds between two looks."""

LOOKS = 2
"""Looks in a row at which it is missing before it counts as ended: a SuperLink that ends ends its SuperExec first."""


class SuperExecWatch:
    """Whether the SuperExec of a process has ended."""

    def __init__(self) -> None:
        self._parent, self._looked = 0, 0.0
        self._seen, self._missed = False, 0

    def ended(self, parent: int) -> bool:
        """Whether process `parent` had a SuperExec and has none any longer, as of the last few seconds."""
        if parent != self._parent:
            self._parent, self._seen, self._missed = parent, False, 0
        elif time.monotonic() - self._looked < LOOK_EVERY:
            return self._missed >= LOOKS
        self._looked = time.monotonic()
        there = bool(children(parent, PROGRAM))
        self._seen = self._seen or there or any(map(_has_ended, _all_children(parent)))  # it starts nothing else
        self._missed = self._missed + 1 if self._seen and not there else 0
        return self._missed >= LOOKS


def children(parent: int, program: str = "") -> list[int]:
    """The ids of a process's living children; where `program` is given, of those whose command names such a file.

    None where they cannot be told, as of a process that is gone. Source: proc_pid_task(5).
    """
    return [
        child
        for child in _all_children(parent)
        if not _has_ended(child) and (not program or program in _command(child))
    ]


def _all_children(parent: int) -> list[int]:
    """Also those that have ended and that nobody has buried."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{parent}/task").iterdir():
            with contextlib.suppress(OSError):  # the thread has ended
                found += map(int, (thread / "children").read_text().split())
    return found


def _has_ended(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return True
    except OSError:  # it is there, and not for us to look at
        return False
    return state in "ZX"


def _command(process: int) -> list[str]:
    """The names of the files that a process was started from; an interpreter comes before its script."""
    with contextlib.suppress(OSError):
        words = Path(f"/proc/{process}/cmdline").read_text(errors="replace").split("\0")
        return [Path(word).name for word in words[:2]]
    return []
