"""A packed model into a network and out of it: in place on the CPU, in one transfer to or from another device."""

import numpy as np
import torch
from torch import Tensor, nn

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
    arrays = schema.unpack(packed)
    state = model.state_dict()
    device = next(iter(state.values())).device
    if device.type == "cpu":
        for name, array in arrays.items():
            np.copyto(state[name].numpy(), array)
        return
    host = torch.empty(schema.nbytes, dtype=torch.uint8, pin_memory=True)
    host.numpy()[:] = np.frombuffer(packed, np.uint8)
    for name, part in _parts(host.to(device, non_blocking=True), schema, state).items():
        state[name].copy_(part)


@torch.no_grad()
def read_packed(model: nn.Module, schema: Schema) -> bytes:
    """The network's tensors as one packed model."""
    state = model.state_dict()
    device = next(iter(state.values())).device
    if device.type == "cpu":
        return schema.pack({name: tensor.numpy() for name, tensor in state.items()})
    flat = torch.zeros(schema.nbytes, dtype=torch.uint8, device=device)
    for name, part in _parts(flat, schema, state).items():
        part.copy_(state[name])
    return torch.empty(flat.shape, dtype=flat.dtype, pin_memory=True).copy_(flat).numpy().tobytes()


def _parts(flat: Tensor, schema: Schema, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Views of a packed model on a device, by name."""
    return {
        t.name: flat[t.offset : t.offset + t.nbytes].view(state[t.name].dtype).view(t.shape) for t in schema.tensors
    }
