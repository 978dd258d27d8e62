"""From uint8 images to logits, on any device."""

from torch import Tensor, nn

from client.data import normalise
from client.device import Place
from client.repeated import Recorder, Repeated


class Inference:
    """The logits of images (B, H, W, C), uint8: (B, num_classes, H, W), in the precision of the place.

    Only for use under `torch.inference_mode`. The next call may overwrite what it returned.

    Args:
        model: stays where it is, whatever weights it holds; put into its evaluation mode.
        recorder: captures the forward pass of a shape that comes often; None: it is computed as it is written.
    """

    def __init__(self, model: nn.Module, place: Place, recorder: Recorder | None) -> None:
        self._model, self._place = model, place
        self._repeated = Repeated(self._forward, recorder) if recorder else None

    def __call__(self, pixels: Tensor) -> Tensor:
        self._model.eval()
        return self._repeated(pixels) if self._repeated else self._forward(self._place.send(pixels))

    def _forward(self, pixels: Tensor) -> Tensor:
        with self._place.autocast():
            logits: Tensor = self._model(normalise(pixels))
        return logits
