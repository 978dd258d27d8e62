"""The network on its device: which model it holds, and how models come into it and out of it."""

import threading
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import nn

from client.device import Place
from client.inference import Inference
from client.packed import load_packed, read_packed, schema_of
from client.repeated import recorder_at
from client.step import Steps
from strategies.correction import Correction
from strategies.local import Arrays
from urwkv import URWKV, Architecture

if TYPE_CHECKING:
    from client.privacy.passes import Passes

_on_gpus: dict[torch.device, "Network"] = {}
_looking = threading.Lock()


def network_at(architecture: Architecture, place: Place) -> "Network":
    """A network there: on a GPU the one that all sites of this process share, so what one captured serves the others.

    Of networks built otherwise a GPU keeps the last. On a CPU it is a new one: sites compute side by side there.
    """
    if place.device.type != "cuda":
        return Network(architecture, place)
    with _looking:
        kept = _on_gpus.get(place.device)
        if kept is None or (kept.architecture, kept.place) != (architecture, place):
            kept = _on_gpus[place.device] = Network(architecture, place)
        return kept


class Network:
    """U-RWKV on a device, made once and kept: models are copied into its own tensors.

    Args:
        architecture: how it is built.
        place: where.

    Attributes:
        turn: held by whoever works with it.
        logits: the logits of images, see `client.inference`.
        steps: makes training steps, see `client.step`.
    """

    def __init__(self, architecture: Architecture, place: Place) -> None:
        self.architecture, self.place = architecture, place
        self.turn = threading.Lock()
        model = URWKV.from_architecture(architecture).to(place.device)
        self.model: nn.Module = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.schema = schema_of(self.model)
        self.weights = {name: weight for name, weight in self.model.named_parameters() if weight.requires_grad}
        """The trainable tensors, by name."""
        self.correction = Correction(self.weights)
        """What a phase adds to their gradients."""
        recorder = recorder_at(place)
        self.logits = Inference(self.model, place, recorder)
        self.steps = Steps(self.model, self.weights, self.correction, place, recorder)
        self._recorder = recorder
        self._held: Arrays | None = None

    @cached_property
    def passes(self) -> "Passes":
        """Makes passes of private training, see `client.privacy.passes`."""
        # Opacus takes seconds to import, and only private training needs it
        from client.privacy.passes import Passes

        return Passes(self.model, self.place, self._recorder)

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
