"""Finished replies, kept at the site until the server has counted them: who asks again gets the same one again.

    STATE/reply-0007.safetensors    the model as it came in round 7 and the model sent back; in the header what was
                                    asked, the other parts of the reply, and a digest of it all

Where training draws noise that cannot be drawn again, computing a round twice would be two releases, to be paid for
twice. A server that is killed goes back by two rounds at most, so the two newest replies are kept.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from protocol.atomic import write_atomic
from protocol.errors import RunError
from protocol.messages import Reply, Task

HEADER = "fedurwkv-reply"
KEPT = 2


class Outbox:
    """The replies of one site to training tasks in one study.

    Args:
        folder: where they lie; made when the first one is written.
        terms: what the hospital lets out with noise alone; a reply that was made under other terms is not sent again.
    """

    def __init__(self, folder: Path, terms: str) -> None:
        self.folder, self.terms = folder, terms

    def find(self, task: Task) -> Reply | None:
        """The reply to this very task, if it was finished before; None when not.

        Raises:
            RunError: the file is torn.
        """
        path = self._path(task.round)
        if not path.is_file():
            return None
        words, _, model = _read(path)
        if words["task"] != self._digest(task):
            return None
        return Reply(words["site"], task.round, words["schema"], model, words["scalars"])

    def keep(self, task: Task, reply: Reply) -> None:
        """Keep a finished reply; when this returns, it is on disk, and only then older ones go."""
        words = {
            "task": self._digest(task),
            "site": reply.site,
            "schema": reply.schema,
            "scalars": dict(reply.scalars),
        }
        words["models"] = _sha256(task.model + reply.model)
        arrays = {"asked": np.frombuffer(task.model, np.uint8), "model": np.frombuffer(reply.model, np.uint8)}
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomic(self._path(task.round), save(arrays, {HEADER: json.dumps(words)}))
        earlier = [number for number in self._numbers() if number < task.round]
        for number in set(self._numbers()) - {task.round, *earlier[1 - KEPT :]}:  # later ones: of a future gone by
            self._path(number).unlink(missing_ok=True)

    def last_asked(self) -> bytes | None:
        """The packed model as it came in the newest round that was finished; None before the first.

        Raises:
            RunError: the file is torn.
        """
        numbers = self._numbers()
        return _read(self._path(numbers[-1]))[1] if numbers else None

    def _numbers(self) -> list[int]:
        names = (re.fullmatch(r"reply-(\d+)\.safetensors", path.name) for path in self.folder.glob("reply-*"))
        return sorted(int(name[1]) for name in names if name)

    def _path(self, number: int) -> Path:
        return self.folder / f"reply-{number:04d}.safetensors"

    def _digest(self, task: Task) -> str:
        """Of all that the reply to a task depends on."""
        words = [task.kind, task.round, task.study, task.accepted, task.split, task.schema, task.received_schema]
        return _sha256(json.dumps([*words, self.terms]).encode() + b"\0" + task.model + task.received)


def _read(path: Path) -> tuple[dict[str, Any], bytes, bytes]:
    """What was written about a reply, the model that was asked about, and the model of the reply."""
    try:
        with safe_open(path, framework="np") as file:
            words = json.loads((file.metadata() or {})[HEADER])
            asked, model = (file.get_tensor(name).tobytes() for name in ("asked", "model"))
        if words["models"] != _sha256(asked + model):
            raise ValueError("its digest is another")
    except (SafetensorError, KeyError, ValueError) as error:
        raise RunError(
            f"{path} is torn ({error}): put it back from a copy, or delete it, and the round is trained, and its"
            " privacy paid for, again"
        ) from error
    return words, asked, model


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
