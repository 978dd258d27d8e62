"""The mean loss of a batch of uint8 pixels, in three forms that differ in rounding alone.

As written: plain torch; on a CPU with the layers that `urwkv.steps` joins there, which pays in every step. Fused:
by operators of our own (`urwkv.steps.choose`), which on a GPU take longer to launch and least to compute. Compiled:
the written form by torch.compile with Inductor; it takes more than a minute for each size of batch and each choice of
weights that move, or a part of that where Inductor's cache on the disk knows them.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call

from client.data import normalise
from client.device import Place
from urwkv.losses import segmentation_loss
from urwkv.lowered import lowered
from urwkv.steps import choose, chosen

Loss = Callable[[Tensor, Tensor], Tensor]
"""Of images (B, H, W, C) and masks (B, H, W), both uint8, on the device of the model."""


class Objective:
    """The loss of one model at one place.

    Args:
        model: stays where it is, whatever weights it holds.
    """

    def __init__(self, model: nn.Module, place: Place) -> None:
        self._model, self._place = model, place
        choose(model, "auto" if place.device.type == "cpu" else "torch")
        self._compiled: Loss | None = None

    def as_written(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """The loss, a scalar, in the precision of the place."""
        with self._place.autocast():
            return self._loss(pixels, masks)

    def fused(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """The same by fused operators, forward and backward, where there is Triton."""
        with chosen(self._model, "auto"), self._place.autocast():
            weights = lowered(self._model, self._place.dtype) if self._place.bf16 else {}
            logits = functional_call(self._model, weights, (normalise(pixels),))
            return segmentation_loss(logits, masks, "auto")

    def compiled(self, pixels: Tensor, masks: Tensor) -> Tensor:
        """The same, compiled."""
        if self._compiled is None:
            torch.compiler.reset()  # what networks before this one left would count towards torch's limit
            self._compiled = torch.compile(self._loss, fullgraph=True, dynamic=False)
        with self._place.autocast():
            return self._compiled(pixels, masks)

    def replayed(self, batch: int) -> Loss:
        """The form that is worth capturing; `batch` is the size that is worth compiling for."""

        def loss_of(pixels: Tensor, masks: Tensor) -> Tensor:
            compiled = self._place.compile == "inductor" and len(pixels) == batch
            return self.compiled(pixels, masks) if compiled else self.fused(pixels, masks)

        return loss_of

    def _loss(self, pixels: Tensor, masks: Tensor) -> Tensor:
        return segmentation_loss(self._model(normalise(pixels)), masks)
