"""A wall around the programs in which the coordinator's code runs: which part of the disk they reach. Linux alone.

A courier runs code that a server ships, as the hospital's own user. Behind the wall it reads what programs need, and
writes into folders of its own; data, ledger and site.yaml are not there for it. Nor can it look into the trainer's
process, because a walled process traces none outside. The kernel holds children to it, too, and nobody takes it down.
What Landlock lets through and must not is refused by `client.refused_calls`.

Sockets are no files here: the trainer's is asked as before, and so is any other that the user may ask. What is known
of a file by its name, as its size, is known behind a wall, too, and its mode may be changed; signals go through.

Source: landlock(7), linux/landlock.h.
"""

import contextlib
import ctypes
import os
import struct
from dataclasses import dataclass
from pathlib import Path

from client import refused_calls
from client.prctl import prctl

CREATE, ADD, RESTRICT = 444, 445, 446  # landlock_create_ruleset(2) and its kin, the same on every machine
ABI_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
PATH_BENEATH = 1
PR_SET_NO_NEW_PRIVS = 38

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
TRUNCATE, TRUNCATE_SINCE = 1 << 14, 3
EVERYTHING = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1}
"""All that can be forbidden to do with files, by the version of the interface."""

SCOPED = 6
"""The version from which on sockets with a name and no file can be kept apart."""
ABSTRACT_SOCKETS = 1 << 0

READ = EXECUTE | READ_FILE | READ_DIR
OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE
"""What can be allowed of a file that is no folder."""

DEVICES = tuple(Path("/dev", name) for name in ("null", "zero", "full", "random", "urandom"))
"""Those that tell nothing; all else there may: disks, terminals, other programs' memory in /dev/shm."""

_libc = ctypes.CDLL(None, use_errno=True)


def version() -> int:
    """That of the kernel's Landlock; 0 where there is none, or it may not be used."""
    return max(0, int(_libc.syscall(CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(ABI_VERSION))))


@dataclass(frozen=True)
class Wall:
    """What is reached from behind it: files and whole folders.

    Attributes:
        read: may be read, and run.
        write: may be changed as well.
        devices: may be read and written.
    """

    read: tuple[Path, ...]
    write: tuple[Path, ...]
    devices: tuple[Path, ...] = DEVICES

    def reaches(self, path: Path) -> bool:
        """Whether `path` can be read from behind it."""
        real = path.resolve()
        return any(real.is_relative_to(place.resolve()) for place in (*self.read, *self.write, *self.devices))

    def build(self) -> int:
        """Its rules, as a file descriptor for `stay_behind`; to be closed. What is not there is left out.

        Raises:
            OSError: the kernel refuses.
        """
        interface = version()
        handled = EVERYTHING[min(interface, max(EVERYTHING))]
        attribute = struct.pack("=Q", handled)
        if interface >= SCOPED:
            attribute += struct.pack("=QQ", 0, ABSTRACT_SOCKETS)  # nothing of the network's
        rules = _call(CREATE, attribute, ctypes.c_size_t(len(attribute)), ctypes.c_uint32(0))
        try:
            for places, access in ((self.read, READ), (self.write, handled), (self.devices, READ_FILE | WRITE_FILE)):
                for place in places:
                    with contextlib.suppress(FileNotFoundError):
                        _allow(rules, place, access & handled)
        except BaseException:
            os.close(rules)
            raise
        return rules


def stay_behind(rules: int) -> None:
    """Put the calling process behind a wall, for good."""
    prctl(PR_SET_NO_NEW_PRIVS, 1)
    _call(RESTRICT, ctypes.c_int(rules), ctypes.c_uint32(0))
    if refused_calls.known():
        refused_calls.refuse(refused_calls.steps())


def _allow(rules: int, place: Path, access: int) -> None:
    folder = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        allowed = access if place.is_dir() else access & OF_FILES
        _call(ADD, ctypes.c_int(rules), PATH_BENEATH, struct.pack("=Qi", allowed, folder), ctypes.c_uint32(0))
    finally:
        os.close(folder)


def _call(number: int, *words: object) -> int:
    result = int(_libc.syscall(number, *words))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"Landlock: {os.strerror(ctypes.get_errno())}")
    return result
