"""A courier's line to its site's own connection, which tells when the courier's run is over.

A SuperNode that waits for a courier's reply asks the coordinator nothing meanwhile, so without this a site would
train on for a run that was stopped or has failed, and be late for the next. Here is the courier's end, which imports
next to nothing; the other is `client.run_watch`.
"""

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAME = "runs"
"""Of the Unix socket, beside that of the trainer."""

OVER = b"over"


@contextmanager
def lifeline(place: Path, run: int, node: int, over: Callable[[], None]) -> Iterator[None]:
    """Inside the `with`, `over` is called once, in another thread, when the run is over.

    Where nobody listens, because a SuperNode was started otherwise than by `fedurwkv site start`, it never is.

    Args:
        place: the socket.
        run: Flower's id of the run.
        node: Flower's id of this site.
    """
    with socket.socket(socket.AF_UNIX) as line:
        try:
            line.connect(str(place))
            line.sendall(json.dumps({"run": run, "node": node}).encode())
        except OSError:
            yield
            return
        thread = threading.Thread(target=_listen, args=(line, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            thread.join()


def _listen(line: socket.socket, over: Callable[[], None]) -> None:
    with contextlib.suppress(OSError):
        if line.recv(len(OVER)) == OVER:
            over()
