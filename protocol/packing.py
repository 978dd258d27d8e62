"""A model as one flat array of bytes, and the schema that says what lies where.

Flower's cost on the wire is per tensor, so a model travels as one array plus the hash of its schema. Tensors are
sorted by name, each on a 16-byte boundary, little-endian, in C order. Both ends derive the schema from their own
network, so a differing network is found by comparing two hashes.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.groups import group_of

ALIGNMENT = 16


@dataclass(frozen=True)
class Tensor:
    """One tensor of a packed model: its name, shape, numpy dtype (`<f4`), group, and first byte."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    group: str
    offset: int

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Schema:
    """Names, shapes, dtypes and groups of a model's tensors, sorted by name."""

    tensors: tuple[Tensor, ...]

    @classmethod
    def of(cls, entries: Iterable[tuple[str, tuple[int, ...], npt.DTypeLike]]) -> "Schema":
        """The schema of (name, shape, dtype) entries, in whatever order they come."""
        tensors: list[Tensor] = []
        offset = 0
        for name, shape, dtype in sorted(entries, key=lambda entry: entry[0]):
            kind = np.dtype(dtype)
            tensor = Tensor(name, tuple(shape), kind.newbyteorder("<").str, group_of(name, kind), offset)
            tensors.append(tensor)
            offset += -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
        return cls(tuple(tensors))

    @classmethod
    def like(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> "Schema":
        """The schema of arrays like these."""
        return cls.of((name, a.shape, a.dtype) for name, a in arrays.items())

    @cached_property
    def nbytes(self) -> int:
        """Bytes of a packed model; 0 without a tensor."""
        return self.tensors[-1].offset + self.tensors[-1].nbytes if self.tensors else 0

    @cached_property
    def hash(self) -> str:
        """SHA-256 of names, shapes, dtypes and groups, in hexadecimal."""
        text = json.dumps([[t.name, t.shape, t.dtype, t.group] for t in self.tensors])
        return hashlib.sha256(text.encode()).hexdigest()

    def pack(self, arrays: Mapping[str, npt.NDArray[Any]]) -> bytes:
        """The arrays, whose names, shapes and dtypes are this schema's, as one run of bytes."""
        parts: list[Any] = []
        end = 0
        for tensor in self.tensors:
            parts += [bytes(tensor.offset - end), np.ascontiguousarray(arrays[tensor.name], tensor.dtype)]
            end = tensor.offset + tensor.nbytes
        return b"".join(parts)

    def unpack(self, packed: bytes) -> dict[str, npt.NDArray[Any]]:
        """The arrays in `packed`, by name: read-only views, nothing is copied.

        Raises:
            ValueError: `packed` has another length than this schema.
        """
        if len(packed) != self.nbytes:
            raise ValueError(f"a packed model of {len(packed):,} bytes where {self.nbytes:,} were expected")
        views = self._views(np.frombuffer(packed, np.uint8))
        return {tensor.name: view for tensor, view in zip(self.tensors, views, strict=True)}

    def _views(self, flat: npt.NDArray[np.uint8]) -> list[npt.NDArray[Any]]:
        return [flat[t.offset : t.offset + t.nbytes].view(np.dtype(t.dtype)).reshape(t.shape) for t in self.tensors]
