"""A packed model into a network and out of it, in one transfer between host and device."""

import numpy as np
import torch
from torch import nn

from protocol.packing import Schema


def schema_of(model: nn.Module) -> Schema:
    """The schema of a network's state dict."""
    return Schema.of(
        (name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in model.state_dict().items()
    )


@torch.no_grad()
def load_packed(model: nn.Module, schema: Schema, packed: bytes) -> None:
    """Copy a packed model into the network's own tensors.

    Raises:
        ValueError: `packed` has another length than the schema.
    """
    if len(packed) != schema.nbytes:
        raise ValueError(f"a packed model of {len(packed):,} bytes where {schema.nbytes:,} were expected")
    state = model.state_dict()
    device = next(iter(state.values())).device
    flat = torch.from_numpy(np.frombuffer(packed, np.uint8).copy()).to(device)
    for tensor in schema.tensors:
        part = flat[tensor.offset : tensor.offset + tensor.nbytes]
        state[tensor.name].copy_(part.view(state[tensor.name].dtype).view(tensor.shape))


@torch.no_grad()
def read_packed(model: nn.Module, schema: Schema) -> bytes:
    """The network's tensors as one packed model."""
    state = model.state_dict()
    device = next(iter(state.values())).device
    flat = torch.zeros(schema.nbytes, dtype=torch.uint8, device=device)
    for tensor in schema.tensors:
        part = flat[tensor.offset : tensor.offset + tensor.nbytes]
        part.view(state[tensor.name].dtype).view(tensor.shape).copy_(state[tensor.name])
    return flat.cpu().numpy().tobytes()
