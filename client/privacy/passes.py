"""Each image's gradient in a physical batch: a pass forward and backward, recorded when it comes often enough."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import torch
from torch import Tensor, nn

from client.data import normalise
from client.device import Place
from client.privacy.hooks import per_sample_gradients
from client.repeated import Recorder, Repeated
from urwkv.losses import image_losses

Gradients = tuple[Tensor, list[Tensor]]
"""The sum of the losses of the images that count; of each weight (B, *shape). The next pass may overwrite both."""

Pass = Callable[[Tensor, Tensor, Tensor], Gradients]
"""Of images (B, H, W, C) and masks (B, H, W), uint8, and which of them count, (B,) bool: the others have no loss."""


class Passes:
    """Makes the passes of private phases for one model, and keeps what is recorded, by the weights that learn.

    Args:
        model: stays where it is, whatever weights it holds.
        recorder: captures a pass of a shape that comes often; None: every pass is computed as it is written.
    """

    def __init__(self, model: nn.Module, place: Place, recorder: Recorder | None = None) -> None:
        self.model, self.place, self._recorder = model, place, recorder
        self._recorded: dict[tuple[str, ...], Repeated[Gradients]] = {}
        self._space: dict[str, Tensor] = {}

    @contextmanager
    def over(self, names: Sequence[str]) -> Iterator[Pass]:
        """The pass for the weights of these names, which alone must be asked for gradients, in this order.

        Raises:
            SettingsError: the network has a layer without per-sample gradients.
        """
        work = partial(self._gradients, {name: self.model.get_parameter(name) for name in names})
        with per_sample_gradients(self.model):
            if self._recorder is None:
                yield lambda *batch: work(*map(self.place.send, batch))
            else:
                yield self._recorded.setdefault(tuple(names), Repeated(work, self._recorder))

    def _gradients(
        self, weights: dict[str, nn.Parameter], pixels: Tensor, masks: Tensor, counted: Tensor
    ) -> Gradients:
        with self.place.autocast():
            losses = image_losses(self.model(normalise(pixels)), masks, "auto")
            loss = torch.where(counted, losses, 0.0).sum()
        torch.autograd.backward(loss)
        grads = {name: weight.grad_sample for name, weight in weights.items()}  # type: ignore[attr-defined]
        for weight in weights.values():
            weight.grad_sample = weight.grad = None  # type: ignore[attr-defined]
        return loss.detach(), list(grads.values()) if self._recorder is None else self._in_place(grads)

    def _in_place(self, grads: dict[str, Tensor]) -> list[Tensor]:
        """In memory that all recordings share: else each would keep gradients of its own as long as the network."""
        for name, each in grads.items():
            if name not in self._space or len(self._space[name]) < len(each):
                self._space[name] = torch.empty_like(each, memory_format=torch.contiguous_format)
        places = [self._space[name][: len(each)] for name, each in grads.items()]
        torch._foreach_copy_(places, list(grads.values()))
        return places
