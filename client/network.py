"""The network of one site on its device: which model it holds, and how models come into it and out of it."""

import torch
from torch import nn

from client.device import Place
from client.packed import load_packed, read_packed, schema_of
from strategies.correction import Correction
from strategies.local import Arrays
from urwkv import URWKV, Architecture


class Network:
    """U-RWKV on a device, made once and kept: models are copied into its own tensors.

    Args:
        architecture: how it is built.
        place: where.
    """

    def __init__(self, architecture: Architecture, place: Place) -> None:
        self.place = place
        model = URWKV.from_architecture(architecture).to(place.device)
        self.model: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schema = schema_of(self.model)
        self.weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        """The trainable tensors, by name."""
        self.correction = Correction(self.weights)
        """What a phase adds to their gradients."""
        self._held: Arrays | None = None

    def take(self, packed: bytes) -> Arrays:
        """Hold a packed model; returns it by name, as views of `packed`.

        Raises:
            ValueError: `packed` has another length than the schema.
        """
        arrays = self.schema.unpack(packed)
        load_packed(self.model, self.schema, packed)
        self._held = arrays
        return arrays

    def hold(self, arrays: Arrays) -> None:
        """Hold the model `arrays`; nothing is copied when it is the very one that is held, not trained since."""
        if arrays is not self._held:
            load_packed(self.model, self.schema, self.schema.pack(arrays))
            self._held = arrays

    def moves(self) -> None:
        """Say that the tensors are about to change, so that what was held is held no longer."""
        self._held = None

    def read(self) -> bytes:
        """The tensors as they are now, as one packed model."""
        return read_packed(self.model, self.schema)
