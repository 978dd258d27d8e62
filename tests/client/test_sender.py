import numpy as np

from client.sender import Sender
from protocol.codec import encode
from protocol.packing import Schema

SCHEMA = Schema.of([("w", (4,), np.float32)])
X = SCHEMA.pack({"w": np.zeros(4, np.float32)})
Y = SCHEMA.pack({"w": np.array([1.27, -1.27, 0.014, 0.0], np.float32)})


def test_a_round_builds_on_what_the_last_accepted_one_left_over() -> None:
    first, left = encode("int8", SCHEMA, X, Y, None)
    second, _ = encode("int8", SCHEMA, X, Y, left)
    assert first != second
    sender = Sender("int8", SCHEMA)
    assert sender.encode(1, 0, X, Y) == first
    assert sender.encode(2, 0, X, Y) == first  # the server left round 1 out
    assert sender.encode(3, 2, X, Y) == second
    assert sender.encode(3, 2, X, Y) == second  # the same round again


def test_nothing_is_remembered_where_nothing_is_rounded() -> None:
    sender = Sender("fp32", SCHEMA)
    assert sender.encode(1, 0, X, Y) == sender.encode(2, 1, X, Y) == Y
