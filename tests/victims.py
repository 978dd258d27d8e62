"""Processes that are killed by SIGKILL in the midst of their work, and what they had told by then.

Only for programs of one thread: the work runs in a fork, so that it need not import everything anew.
"""

import contextlib
import os
import signal
import time
import traceback
from collections.abc import Callable

Tell = Callable[[str], None]
"""Says one word to the one who watches; it arrives though the next instruction be the last."""


def victim(work: Callable[[Tell], None], when: str = "", after: float = 0.0) -> tuple[list[str], bool]:
    """Run `work` in a process, and kill it `after` seconds after it told the word `when`; empty: never.

    Returns:
        The words that it told, in order, and whether it was killed before its end.

    Raises:
        RuntimeError: it raised, and was not killed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(reading)
        _suffer(work, lambda word: os.write(writing, f"{word}\n".encode()))
    os.close(writing)
    words: list[str] = []
    with os.fdopen(reading, "r") as told:
        for line in told:
            words.append(line.rstrip("\n"))
            if words[-1] == when:
                time.sleep(after)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                when = ""
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"the process failed by itself, after {words[-3:]}")
    return words, code != 0


def _suffer(work: Callable[[Tell], None], tell: Tell) -> None:
    """The work and no more: nothing of the process that it was forked from is ended or written twice."""
    try:
        work(tell)
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def telling(function: Callable[..., object], word: str, tell: Tell) -> Callable[..., object]:
    """The function, which tells the word before it begins."""

    def told(*args: object, **kwargs: object) -> object:
        tell(word)
        return function(*args, **kwargs)

    return told
