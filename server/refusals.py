"""Refusals: the answer to who is refused, and a study's log of them, a line each: when, who, and why."""

import datetime
import json
import time
from pathlib import Path

from starlette.types import Send

from server.responses import Header, whole

QUIET_SECONDS = 60.0
"""Seconds in which the same refusal is not logged again."""


class Refusals:
    """Writes refusals down.

    Args:
        path: the log, which several processes add to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._said: dict[str, float] = {}

    def note(self, words: str) -> None:
        """Write "refused `words`" down, unless that was just written."""
        now = time.time()
        if now - self._said.get(words, 0.0) < QUIET_SECONDS:
            return
        self._said = {text: at for text, at in self._said.items() if now - at < QUIET_SECONDS} | {words: now}
        stamp = datetime.datetime.fromtimestamp(now).astimezone().isoformat(timespec="seconds")
        with self._path.open("a") as file:
            file.write(f"{stamp} refused {words}\n")


async def send_refusal(send: Send, status: int, reason: str, *more: Header) -> None:
    """Answer a call with a refusal in Flower's form, which the caller's program shows; `more` are further headers."""
    body = json.dumps({"code": status, "detail": "refused by the coordinator", "extra": reason}).encode()
    await whole(status, b"application/json", body, *more).pass_on(send)
