"""Calls to the kernel that reach over a wall, since Landlock does not look at them; behind one they are refused.

A watch on a folder tells the names of the files that others open there, whoever may list them or not, and files are
named after patients. Before Linux 6.2 any file of the user's could be cut short by its name alone.

Source: seccomp(2), linux/seccomp.h, linux/bpf_common.h, linux/audit.h, asm/unistd.h.
"""

import ctypes
import errno
import os
import struct

from client.prctl import prctl
from protocol.errors import DeploymentError

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE = 0x7FFF0000, 0x00050000 | errno.EPERM
LOAD, EQUAL, AT_LEAST, RETURN = 0x20, 0x15, 0x35, 0x06
NUMBER, MACHINE = 0, 4  # where they lie in struct seccomp_data

X32 = 0x40000000
"""From here on are the numbers of x86's third interface, under which the same calls have other numbers."""

CALLS = {
    "x86_64": (0xC000003E, (76, 254, 301)),
    "aarch64": (0xC00000B7, (45, 27, 263)),
}
"""By machine: its AUDIT_ARCH, and the numbers of truncate, inotify_add_watch and fanotify_mark."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("steps", ctypes.c_char_p))


def known() -> bool:
    """Whether this machine's numbers are known."""
    return os.uname().machine in CALLS


def steps() -> bytes:
    """The filter for this machine; another interface than its own, as of 32-bit programs, is refused whole.

    Raises:
        DeploymentError: its numbers are not known.
    """
    if not known():
        raise DeploymentError(f"the kernel's calls on {os.uname().machine} are not known, only on {sorted(CALLS)}")
    machine, calls = CALLS[os.uname().machine]
    tests = [(AT_LEAST, X32), *((EQUAL, call) for call in calls)]
    rows = [(LOAD, 0, 0, MACHINE), (EQUAL, 1, 0, machine), (RETURN, 0, 0, REFUSE), (LOAD, 0, 0, NUMBER)]
    # each test, where it holds, skips the later ones and the word that allows
    rows += [(code, len(tests) - i, 0, value) for i, (code, value) in enumerate(tests)]
    rows += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, REFUSE)]
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


def refuse(filter_steps: bytes) -> None:
    """Have the kernel refuse them to the calling process and its children, for good; PR_SET_NO_NEW_PRIVS is set."""
    program = _Program(len(filter_steps) // 8, filter_steps)
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(program))
