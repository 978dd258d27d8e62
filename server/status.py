"""What a run is doing this moment, as a small file for those who watch it; unlike the journal it may be lost."""

import json
import time
from pathlib import Path
from typing import Any


class Status:
    """`status.json` in the run's folder: phase, round, the sites still waited for, and when that was.

    Args:
        run: the run's folder.
    """

    def __init__(self, run: Path) -> None:
        self._path = run / "status.json"
        self._words: dict[str, Any] = {}

    def update(self, **words: Any) -> None:
        """Change some of the words and write them all."""
        self._words |= words | {"at": time.time()}
        part = self._path.with_suffix(".part")
        part.write_text(json.dumps(self._words))
        part.replace(self._path)


def read_status(run: Path) -> dict[str, Any]:
    """The words of `status.json`; empty before the run has said anything."""
    path = run / "status.json"
    words: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    return words
