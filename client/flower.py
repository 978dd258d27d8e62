"""What Flower's own programs get at a site, and with them the coordinator's code: an environment and a wall."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from client import refused_calls, warm_courier
from client.hospital import FILE, Hospital
from client.privacy.policy import read_policy
from client.wall import TRUNCATE_SINCE, Wall, version
from protocol import flower
from protocol.errors import PolicyError

HOME, PROGRAMS = "flower", "programs"
"""Folders in the state: Flower's home and temporary files, and what it finds before its own programs."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/nix/store", "/gnu/store")
"""What any program reads."""

NAMES = tuple(f"/run/{name}" for name in ("systemd/resolve", "NetworkManager", "resolvconf", "netconfig", "connman"))
"""Where /etc/resolv.conf may lead, so that names of hosts are found; folders, because their files are replaced."""

SERVANTS = ("/run/user/{user}/systemd/private", "/run/user/{user}/bus", "/run/docker.sock", "/run/podman/podman.sock")
"""Sockets of those who start programs for whoever asks; a program of theirs is behind no wall."""


def environment(hospital: Hospital) -> dict[str, str]:
    """The environment: a home, programs, no calls to anybody but the coordinator."""
    home = hospital.state / HOME
    return flower.environment(home, hospital.state / PROGRAMS) | {
        "TMPDIR": str(home),
        # how often SuperExec asks for work, in seconds; its default of 1 would be half of a short round
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "OPENBLAS_NUM_THREADS": "1",  # couriers carry; threads of theirs would only be in the way of the trainer's
    }


def wall(hospital: Hospital) -> Wall | None:
    """What they reach: the system, the connection's files, what is theirs. None where the kernel builds no walls."""
    if not version():
        return None
    python = (Path(sys.prefix), Path(sys.base_prefix), Path(warm_courier.__file__))
    return Wall(
        read=(*map(Path, SYSTEM + NAMES), *python, hospital.ca, hospital.key, hospital.state / PROGRAMS),
        write=(hospital.state / HOME, hospital.socket.parent),
    )


def holes(hospital: Hospital, around: Wall | None) -> Iterator[str]:
    """What of the hospital's they reach and should not, in words for whoever starts them."""
    if around is None:
        yield (
            "this kernel has no Landlock, so the coordinator's code, which couriers run, reaches all that this user"
            " does here: docs/deploy.md, What runs"
        )
        return
    yield from _cracks()
    hidden = [hospital.data, hospital.folder / FILE, hospital.state]
    with contextlib.suppress(PolicyError):  # without one nothing is trained, and whoever starts the trainer says so
        hidden.append(read_policy(hospital.folder).ledger)
    for path in hidden:
        if around.reaches(path):
            yield (
                f"{path} lies where Flower's programs have to read, so the coordinator's code reaches it, too;"
                " move it elsewhere"
            )


def _cracks() -> Iterator[str]:
    """What no wall holds on this machine."""
    user = os.geteuid()
    if user == 0:
        yield "this is root, whom no wall holds for certain; run the site as a user of its own"
    for socket in (socket.format(user=user) for socket in SERVANTS):
        if os.access(socket, os.W_OK):
            yield (
                f"{socket} takes orders from this user, so the coordinator's code can have programs started outside"
                " its wall; run the site as a user of its own, who never logs in and is in no group of another"
            )
    if not refused_calls.known():
        yield (
            f"which calls to refuse is not known of {os.uname().machine}, so the coordinator's code may learn the"
            " names of files as they are opened"
        )
        if version() < TRUNCATE_SINCE:
            yield "this kernel lets the coordinator's code cut files of this user's short; Linux 6.2 and later do not"
