"""Programs behind a wall, for tests of what they reach."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from client.wall import Wall, stay_behind


def behind(wall: Wall, command: Sequence[str]) -> str:
    """What a program prints behind a wall, errors among it."""
    rules = wall.build()
    try:
        begin = partial(stay_behind, rules)
        done = subprocess.run(command, capture_output=True, text=True, preexec_fn=begin, check=False)
    finally:
        os.close(rules)
    return done.stdout + done.stderr


def shell(wall: Wall, code: str) -> str:
    """The same of lines of the shell."""
    return behind(wall, ["sh", "-c", code])


def python(wall: Wall, code: str) -> str:
    """The same of Python, which is let through whatever else is."""
    there = replace(wall, read=(*wall.read, Path(sys.prefix), Path(sys.base_prefix)))
    return behind(there, [sys.executable, "-S", "-c", code])
