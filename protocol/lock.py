"""One process at a time: an advisory lock on a file, gone with the process that holds it, however it ends."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocol.errors import RunError


@contextmanager
def hold(path: Path, taken: str) -> Iterator[None]:
    """Hold the lock `path`, whose folder exists, inside the `with`.

    Raises:
        RunError: another process holds it; the message is `taken`.
    """
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{taken}; wait for it or end it first") from error
        yield
