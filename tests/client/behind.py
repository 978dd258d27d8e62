"""Programs behind a wall, for tests of what they reach."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import client
from client.wall import Wall

BEGIN = """\
import os, sys
root, rules, *command = sys.argv[1:]
sys.path.insert(0, root)
from client.wall import stay_behind
stay_behind(int(rules))
os.close(int(rules))
os.execvp(command[0], command)
"""
"""Goes behind the wall in a process of its own: a fork of the tests' would say what libraries in it, as gRPC, say."""

ROOT = str(Path(client.__file__).parents[1])


def behind(wall: Wall, command: Sequence[str]) -> str:
    """What a program prints behind a wall, errors among it."""
    rules = wall.build()
    try:
        begin = [sys.executable, "-S", "-c", BEGIN, ROOT, str(rules)]
        done = subprocess.run([*begin, *command], capture_output=True, text=True, pass_fds=[rules], check=False)
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
