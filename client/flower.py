"""What Flower's own programs get at a site, and with them the coordinator's code: an environment and a wall."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

from client import warm_courier
from client.hospital import FILE, Hospital
from client.wall import Wall, version

HOME, PROGRAMS = "flower", "programs"
"""Folders in the state: Flower's home and temporary files, and what it finds before its own programs."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/proc", "/sys", "/run/systemd/resolve", "/run/nscd")
"""What any program reads, names of hosts among it."""


def environment(hospital: Hospital) -> dict[str, str]:
    """The environment: a home, programs, no calls to anybody but the coordinator."""
    home, programs = hospital.state / HOME, hospital.state / PROGRAMS
    path = os.pathsep.join([str(programs), str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    return os.environ | {
        "FLWR_HOME": str(home),
        "TMPDIR": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        # how often SuperExec asks for work, in seconds; its default of 1 would be half of a short round
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
        "OPENBLAS_NUM_THREADS": "1",  # couriers carry; threads of theirs would only be in the way of the trainer's
        "PATH": path,
    }


def wall(hospital: Hospital) -> Wall | None:
    """What they reach: the system, the connection's files, what is theirs. None where the kernel builds no walls."""
    if not version():
        return None
    python = (Path(sys.prefix), Path(sys.base_prefix), Path(warm_courier.__file__))
    return Wall(
        read=(*map(Path, SYSTEM), *python, hospital.ca, hospital.key, hospital.state / PROGRAMS),
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
    for path in (hospital.data, hospital.folder / FILE):
        if around.reaches(path):
            yield (
                f"{path} lies where Flower's programs have to read, so the coordinator's code reaches it, too;"
                " move it elsewhere"
            )
