"""How an update travels: whole in fp32, or as its difference from the global model in bf16 or int8.

A site sends q = Q(y - x + e), where x is the model that came, y the one after training, and e what earlier rounds'
rounding left over; it keeps e' = y - x + e - q for the next round, so that nothing is lost for good, only late (error
feedback: Seide et al., Interspeech 2014; Karimireddy et al., ICML 2019, https://arxiv.org/abs/1901.09847). The server
reads y' = x + q.

    fp32   y itself, bit for bit
    bf16   the upper 16 bits of each number, rounded to nearest, ties to even
    int8   round(d / s) in -127..127 with one fp32 scale s = max|d| / 127 for each run of `RUN` numbers

Trainable parameters alone are rounded. Statistics and counters are few, and a variance must not be rounded below
zero: they travel as they are. The length of an encoded update follows from schema and codec, so the server knows it
before it reads one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from protocol.packing import Schema, Tensor

Codec = Literal["fp32", "bf16", "int8"]

RUN = 1024
"""Numbers that share one scale: 4 bytes to 1024."""

STEPS = 127

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class TransferSettings:
    """The `transfer.*` settings: how updates travel to the server."""

    codec: Codec


def encoded_bytes(codec: Codec, schema: Schema) -> int:
    """Bytes of an encoded update of this schema."""
    if codec == "fp32":
        return schema.nbytes
    count, rest = _count(schema), sum(tensor.nbytes for tensor in _whole(schema))
    return rest + (2 * count if codec == "bf16" else count + 4 * -(-count // RUN))


def encode(codec: Codec, schema: Schema, x: bytes, y: bytes, left: Floats | None) -> tuple[bytes, Floats | None]:
    """The update y of the model x, both packed, as it travels.

    Args:
        left: e, what earlier rounds left over, one number a trainable parameter; None before the first.

    Returns:
        The encoded update, and e' for the next round; None where nothing is rounded.
    """
    if codec == "fp32":
        return y, None
    after = schema.unpack(y)
    difference = _flat(schema, after) - _flat(schema, schema.unpack(x))
    if left is not None:
        difference += left
    rounded, data = _round_bf16(difference) if codec == "bf16" else _round_int8(difference)
    whole = b"".join(after[tensor.name].tobytes() for tensor in _whole(schema))
    return data + whole, difference - rounded


def decode(
    codec: Codec, schema: Schema, x: Mapping[str, npt.NDArray[Any]], data: bytes
) -> dict[str, npt.NDArray[Any]]:
    """The update that `data` holds, by name; x is the global model that was sent.

    Raises:
        ValueError: `data` has another length than codec and schema say.
    """
    if codec == "fp32":
        return schema.unpack(data)
    if len(data) != (expected := encoded_bytes(codec, schema)):
        raise ValueError(f"an update of {len(data):,} bytes where {codec} makes {expected:,}")
    count = _count(schema)
    difference, start = _read_bf16(data, count) if codec == "bf16" else _read_int8(data, count)
    arrays: dict[str, Array] = {}
    end = 0
    for tensor in _rounded(schema):
        size = tensor.nbytes // 4
        arrays[tensor.name] = x[tensor.name] + difference[end : end + size].reshape(tensor.shape)
        end += size
    for tensor in _whole(schema):
        part = np.frombuffer(data, np.dtype(tensor.dtype), tensor.nbytes // np.dtype(tensor.dtype).itemsize, start)
        arrays[tensor.name] = part.reshape(tensor.shape)
        start += tensor.nbytes
    return arrays


def _rounded(schema: Schema) -> list[Tensor]:
    return [tensor for tensor in schema.tensors if tensor.group == "parameter" and tensor.dtype == "<f4"]


def _whole(schema: Schema) -> list[Tensor]:
    rounded = set(_rounded(schema))
    return [tensor for tensor in schema.tensors if tensor not in rounded]


def _count(schema: Schema) -> int:
    return sum(tensor.nbytes for tensor in _rounded(schema)) // 4


def _flat(schema: Schema, arrays: Mapping[str, npt.NDArray[Any]]) -> Floats:
    return np.concatenate(
        [arrays[tensor.name].reshape(-1) for tensor in _rounded(schema)] or [np.zeros(0, np.float32)]
    )


def _round_bf16(d: Floats) -> tuple[Floats, bytes]:
    bits = d.view(np.uint32)
    upper = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype("<u2")
    return _from_upper(upper), upper.tobytes()


def _read_bf16(data: bytes, count: int) -> tuple[Floats, int]:
    return _from_upper(np.frombuffer(data, "<u2", count)), 2 * count


def _from_upper(upper: npt.NDArray[np.uint16]) -> Floats:
    return (upper.astype(np.uint32) << 16).view(np.float32)


def _round_int8(d: Floats) -> tuple[Floats, bytes]:
    runs = np.zeros((-(-d.size // RUN), RUN), np.float32)
    runs.reshape(-1)[: d.size] = d
    scales = np.abs(runs).max(1) / np.float32(STEPS)
    steps = np.rint(runs / np.where(scales > 0, scales, 1)[:, None]).astype(np.int8)
    rounded = (steps * scales[:, None]).reshape(-1)[: d.size]
    return rounded, scales.astype("<f4").tobytes() + steps.reshape(-1)[: d.size].tobytes()


def _read_int8(data: bytes, count: int) -> tuple[Floats, int]:
    scales = np.frombuffer(data, "<f4", -(-count // RUN))
    steps = np.frombuffer(data, np.int8, count, scales.nbytes)
    return steps * np.repeat(scales, RUN)[:count], scales.nbytes + count
