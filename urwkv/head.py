"""The network's last layer, a 1 x 1 convolution to its classes: torch's, or on a GPU one operation of our own."""

from torch import Tensor, nn

from urwkv.ops import gpu
from urwkv.ops.gpu import HAS_TRITON

if HAS_TRITON:
    from urwkv.ops.head_triton import head_triton, obstacle_of_sizes


class Head(nn.Conv2d):
    """A map (B, C, H, W) to logits (B, classes, H, W), in the dtype in which torch has them, under autocast too.

    Hooks see it as they see any layer, however it is computed.

    Attributes:
        backend: "torch": torch's convolution. "auto": in one kernel on a GPU with Triton, of channels_last maps and
            few classes. "triton": as "auto", and an error where that cannot be.
    """

    backend = "torch"

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__(channels, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.backend == "torch":
            return super().forward(x)
        obstacle = self._obstacle(x)
        if obstacle and self.backend == "triton":
            raise ValueError(f"head: backend = 'triton' {obstacle}; use auto or torch")
        if obstacle:
            return super().forward(x)
        logits: Tensor = head_triton(x, self.weight, self.bias, gpu.dtype_beyond(x))
        return logits

    def _obstacle(self, x: Tensor) -> str:
        if found := gpu.obstacle_of_map(x):
            return found
        if x.shape[1] != self.in_channels:
            return f"takes maps of {self.in_channels} channels, not of {x.shape[1]}"
        return obstacle_of_sizes(self.in_channels, self.out_channels)
