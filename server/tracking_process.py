"""The process that tells MLflow of a run: it follows RUN/checkpoint and tries again while MLflow is out of reach.

On its standard input it gets one line of JSON (the settings), later the word `finish`. The end of that input
without the word means that the run died: it marks the MLflow run KILLED and exits. Its one line of standard
output is for the user. What MLflow is told is in `server.mlflow_log`.
"""

import contextlib
import fcntl
import json
import logging
import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from protocol.errors import RunError
from server.mlflow_uri import redacted
from server.tracking import FINISH, TrackingSettings, untracked

if TYPE_CHECKING:
    from server.mlflow_log import MlflowLog

POLL_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
LAST_ATTEMPTS = 2

logger = logging.getLogger("tracking")


class _Follower:
    def __init__(self, run: Path, settings: TrackingSettings) -> None:
        self._run = run
        self._settings = settings
        self._log: MlflowLog | None = None
        self._lock: IO[bytes] | None = None
        self.complete = False

    def attempt(self, status: str = "") -> "MlflowLog":
        """Tell MLflow what is new and, with a `status`, that this is the end."""
        if self._lock is None:
            self._lock = _lock(self._run)
        if self._log is None:
            from server.mlflow_log import MlflowLog  # two seconds of imports

            self._log = MlflowLog(self._run, self._settings.uri, self._settings.experiment)
        self._log.catch_up()
        if status:
            self._log.close(status)
        return self._log

    def follow(self, words: "queue.Queue[str]") -> str:
        """Until the word or the end of input; returns the line for the user."""
        parent, pause, word = os.getppid(), 0.0, None
        while word is None:
            with contextlib.suppress(queue.Empty):
                word = words.get(timeout=pause)
            if os.getppid() != parent:  # a forked worker of the run may hold our input open
                word = ""
            if word is None:
                try:
                    self.attempt()
                    pause = POLL_SECONDS
                except Exception as error:
                    pause = min(max(2 * pause, POLL_SECONDS), LONGEST_PAUSE_SECONDS)
                    logger.warning("%s; next attempt in %.0f s", reason(error, self._settings.uri), pause)
        return self._end(finished=word.strip() == FINISH)

    def _end(self, finished: bool) -> str:
        status = "KILLED"
        if finished:
            status = "FINISHED" if (self._run / "result.json").is_file() else "FAILED"
        why = ""
        for _ in range(LAST_ATTEMPTS if finished else 1):
            try:
                where = self.attempt(status).where
                self.complete = True
                return where
            except Exception as error:
                why = reason(error, self._settings.uri)
                logger.warning("%s", why, exc_info=True)
        return untracked(self._run, why)


def reason(error: Exception, uri: str) -> str:
    """An error on the way to MLflow as part of a line."""
    chain: list[str] = []
    link: BaseException | None = error
    while link is not None:
        chain.append(type(link).__name__)
        link = link.__cause__ or link.__context__
    place = redacted(uri) or "MLflow's database"
    if any("Timeout" in name for name in chain):
        return f"{place} did not answer in time"
    if any("ConnectionError" in name or "NameResolution" in name for name in chain):
        return f"{place} cannot be reached"
    words = redacted(" ".join(str(error).split()))
    return words if len(words) <= 200 else words[:197] + "..."


def _lock(run: Path) -> IO[bytes]:
    """One tracking process a run; the lock goes with the process, however it ends."""
    file = (run / "tracking.log").open("ab")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise RunError("another process is tracking this run") from error
    return file


def _listen() -> "queue.Queue[str]":
    """The lines of standard input as they come; "" at its end."""
    words: queue.Queue[str] = queue.Queue()

    def read() -> None:
        for line in sys.stdin:
            words.put(line)
        words.put("")

    threading.Thread(target=read, daemon=True).start()
    return words


def main() -> None:
    """`python -m server.tracking_process RUN`, as `server.tracking.start` runs it."""
    os.nice(10)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(format="%(asctime)s %(message)s")
    answer = os.dup(1)
    os.dup2(2, 1)  # MLflow prints; the answer alone goes to the run
    words = _listen()
    settings = TrackingSettings(**json.loads(words.get()))
    follower = _Follower(Path(sys.argv[1]), settings)
    line = follower.follow(words)
    with contextlib.suppress(BrokenPipeError):
        os.write(answer, line.encode())
    sys.exit(not follower.complete)


if __name__ == "__main__":
    main()
