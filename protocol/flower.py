"""What every process of Flower's gets on this machine, at the coordinator as at a site."""

import os
import sys
from pathlib import Path

QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
}
"""What keeps Flower's processes from calling home."""


def environment(home: Path, *programs: Path) -> dict[str, str]:
    """Its environment: a home, no calls to anybody, and where programs are: in `programs`, and beside this Python."""
    path = [*map(str, programs), str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    return os.environ | QUIET | {"FLWR_HOME": str(home), "PATH": os.pathsep.join(path)}
