"""Waiting for what another process or thread does."""

import time
from collections.abc import Callable

PAUSE = 0.05


def in_vain() -> str:
    return "waited in vain"


def wait(done: Callable[[], object], seconds: float = 20.0, why: Callable[[], str] = in_vain) -> None:
    """Wait until `done`; AssertionError with `why` when that takes too long."""
    until = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < until, why()
        time.sleep(PAUSE)
