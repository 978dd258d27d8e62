"""What a site remembers to send its updates rounded: what the rounding of each round left over (`protocol.codec`)."""

from protocol.codec import Codec, Floats, encode
from protocol.packing import Schema


class Sender:
    """Encodes the updates of one site, round by round.

    What is left over counts only if the server counted the reply: a round builds on the last accepted one. It lives
    in memory; a trainer that is started anew begins without, which costs what one round's rounding left over.
    """

    def __init__(self, codec: Codec, schema: Schema) -> None:
        self._codec = codec
        self._schema = schema
        self._left: dict[int, Floats] = {}

    def encode(self, number: int, accepted: int, x: bytes, y: bytes) -> bytes:
        """The update y of the model x in round `number`, whose last accepted predecessor was round `accepted`."""
        left = self._left.get(accepted)
        data, remaining = encode(self._codec, self._schema, x, y, left)
        self._left = {accepted: left} if left is not None else {}
        if remaining is not None:
            self._left[number] = remaining
        return data
