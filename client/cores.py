"""How many cores this process may use: what its affinity allows and the quotas of its control groups pay for."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUPS = Path("/proc/self/cgroup")


def cores() -> int:
    """Cores that this process may use, at least 1."""
    return max(1, min([len(os.sched_getaffinity(0)), *map(int, quotas(CGROUPS, OWN_CGROUPS))]))


def quotas(root: Path, own: Path) -> Iterator[float]:
    """The quotas, in cores, of this process's control groups and of those around them (cgroups(7), versions 1 and 2).

    Args:
        root: where the control groups are mounted.
        own: the file that names the process's own, a line each: `number:controllers:path`.
    """
    for line in own.read_text().splitlines() if own.is_file() else []:
        _, controllers, path = line.split(":", 2)
        if not controllers or "cpu" in controllers.split(","):  # version 2 has no controllers there
            inner = Path(path.strip("/"))
            for folder in (inner, *inner.parents):
                yield from _quota(root / controllers / folder)


def _quota(folder: Path) -> Iterator[float]:
    """Microseconds of computing over those of the period in which they may be spent."""
    limit = folder / "cpu.max"
    parts = [limit] if limit.is_file() else [folder / "cpu.cfs_quota_us", folder / "cpu.cfs_period_us"]
    words = [word for part in parts if part.is_file() for word in part.read_text().split()]
    if len(words) == 2 and words[0] not in ("max", "-1"):
        yield int(words[0]) / int(words[1])
