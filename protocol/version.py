"""Which code this is: one digest over everything that shapes what a site computes and sends.

A hospital trains with its own installed code, whatever code a server ships to the courier; two ends that differ
are found by comparing digests before anything is computed.
"""

import functools
import hashlib
from pathlib import Path

from protocol.settings import ROOT

FOLDERS = ("client", "protocol", "strategies", "urwkv")


@functools.cache
def code_digest(root: Path = ROOT) -> str:
    """SHA-256, in hexadecimal, over the names and contents of the Python files in `FOLDERS` below `root`."""
    digest = hashlib.sha256()
    for path in sorted(path for folder in FOLDERS for path in (root / folder).rglob("*.py")):
        data = path.read_bytes()
        digest.update(f"{path.relative_to(root).as_posix()} {len(data)}\n".encode() + data)
    return digest.hexdigest()
