"""Updates as they travel, and what a site remembers to send them rounded: what each round's rounding left over.

    STATE/rounding/round-0007.safetensors    one number a trainable parameter (`protocol.codec`), where a codec rounds

What is left over counts only if the server counted the reply, so a round builds on the last accepted one, and earlier
ones stay as long as a resumed run may go back to them: the rule of all that a site remembers (`strategies.site`).
"""

import logging
from pathlib import Path

from client.memory import StateFolder
from protocol.codec import Codec, Floats, encode
from protocol.errors import RunError
from protocol.messages import Task
from protocol.packing import Schema
from strategies.site import Memory

log = logging.getLogger(__name__)

ROUNDING = "rounding"
LEFT = "left"


class Sender:
    """Encodes the updates of one site, round by round.

    Args:
        codec: how they travel.
        schema: the model's.
        state: the site's folder for this study; None where nothing is kept.

    Raises:
        RunError: the codec has the site keep something, and there is no folder for it.
    """

    def __init__(self, codec: Codec, schema: Schema, state: Path | None) -> None:
        if codec != "fp32" and state is None:
            raise RunError(
                f"transfer.codec = {codec!r} has a site keep what rounding left over: name a folder for it"
            )
        self._codec = codec
        self._schema = schema
        self._folder = state / ROUNDING if state is not None else None

    def encode(self, task: Task, y: bytes) -> bytes:
        """The update y, packed, of the task's model as it travels; what is left over is on disk when this returns.

        Raises:
            RunError: what earlier rounds left over is torn.
        """
        if self._codec == "fp32" or self._folder is None:
            return encode(self._codec, self._schema, task.model, y, None)[0]
        memory = Memory(StateFolder(self._folder, task.study))
        data, left = encode(self._codec, self._schema, task.model, y, self._left(memory, task.accepted))
        assert left is not None  # of fp32 alone nothing is left over
        memory.propose(task.round, task.accepted, {LEFT: left}, task.keep)
        return data

    def _left(self, memory: Memory, accepted: int) -> Floats | None:
        """What round `accepted` left over; None before any was, or when it is lost, which costs that much alone."""
        state = memory.states.get(accepted)
        if state is None:
            log.warning("what rounding left over in round %d is not in %s: it is lost", accepted, self._folder)
        return state[LEFT] if state else None
