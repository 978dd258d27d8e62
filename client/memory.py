"""What a site remembers of a study, on its own disk: one safetensors file a round, whole or absent.

    STATE/round-0007.safetensors    the site's state after round 7; study, round and digest in the header
    STATE/rounding/                 the same of what rounding left over (`client.sender`)
    STATE/personal.safetensors      the model of its own that the site would use, where there is one

Nothing is held in memory between rounds, so several processes that serve one site in turn see the same. Which rounds
stay is for `strategies.site.Memory` to say.
"""

import hashlib
import json
import re
from collections.abc import Iterator, MutableMapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from protocol.atomic import write_atomic
from protocol.errors import RunError
from strategies.local import State

HEADER = "fedurwkv-state"
PERSONAL = "personal.safetensors"
CURE = "put it back from a copy, or begin the study anew"


class StateFolder(MutableMapping[int, State]):
    """The states of one site in one study, by the numbers of their rounds.

    Args:
        folder: where they lie; made when the first one is written. It belongs to the site and to one study alone.
        study: what tells the study from every other.
    """

    def __init__(self, folder: Path, study: str) -> None:
        self.folder = folder
        self.study = study

    def __getitem__(self, number: int) -> State:
        """The state after round `number`.

        Raises:
            KeyError: there is none.
            RunError: the file is torn, or of another study.
        """
        path = self._path(number)
        if not path.is_file():
            raise KeyError(number)
        try:
            with safe_open(path, framework="np") as file:
                words = json.loads((file.metadata() or {})[HEADER])
                state: State = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (SafetensorError, KeyError, ValueError) as error:
            raise RunError(f"{path} is torn ({error}): {CURE}") from error
        if words["study"] != self.study:
            raise RunError(f"{path} belongs to another study: give this one a folder of its own")
        if words["digest"] != _digest(self.study, number, state):
            raise RunError(f"{path} is torn: its digest is another: {CURE}")
        return state

    def __setitem__(self, number: int, state: State) -> None:
        """Write a state so that a reader, or a kill, finds the old file or the new one."""
        state = {name: np.asarray(a, order="C") for name, a in state.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        words = {"study": self.study, "round": number, "digest": _digest(self.study, number, state)}
        write_atomic(self._path(number), save(state, {HEADER: json.dumps(words)}))

    def __delitem__(self, number: int) -> None:
        self._path(number).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[int]:
        names = (re.fullmatch(r"round-(\d+)\.safetensors", path.name) for path in self.folder.glob("round-*"))
        return iter(sorted(int(name[1]) for name in names if name))

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _path(self, number: int) -> Path:
        return self.folder / f"round-{number:04d}.safetensors"


def _digest(study: str, number: int, state: State) -> str:
    """SHA-256 of a state with what it belongs to."""
    layout = [[name, a.shape, a.dtype.str] for name, a in sorted(state.items())]
    digest = hashlib.sha256(json.dumps([study, number, layout]).encode())
    for _, a in sorted(state.items()):
        digest.update(a.tobytes())
    return digest.hexdigest()
