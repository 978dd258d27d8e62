"""Fusion's 3 x 3 convolutions in two groups, as groups and as one dense convolution with zeros: `urwkv.ops.grouped`.

Forward and backward under bf16, on a GPU; medians by device events.

    python bench/grouped.py [--batch 128]
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.table import Aim, gpu_milliseconds, heading, row
from urwkv.ops.grouped import MOST, dense

SHAPES = [(16, 256), (32, 128), (64, 64), (128, 64), (128, 32), (160, 32)]
"""Channels a group, and the side of the map: the base network's, and two beside them."""

FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "in groups": lambda x, weight: F.conv2d(x, weight, None, 1, 1, 1, MOST),
    "dense": lambda x, weight: F.conv2d(x, dense(weight, MOST), None, 1, 1),
}


def both_ways(form: str, batch: int, width: int, side: int) -> str:
    channels = MOST * width
    x = torch.randn(batch, channels, side, side, device="cuda", dtype=torch.bfloat16)
    x = x.to(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(channels, width, 3, 3, device="cuda", requires_grad=True)
    dy = torch.randn_like(x)

    def step() -> tuple[Tensor, ...]:
        return torch.autograd.grad(FORMS[form](x, weight.to(x.dtype)), (x, weight), dy)

    return f"{gpu_milliseconds(step, 10):.3f} ms"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=128)
    batch = parser.parse_args().batch
    if not torch.cuda.is_available():
        parser.error("needs a GPU: on a CPU groups are computed as they are")
    heading()
    for width, side in SHAPES:
        for form in FORMS:
            name = f"{width} channels a group, side {side}, {form}"
            row(name, Aim(), lambda form=form, width=width, side=side: both_ways(form, batch, width, side))


if __name__ == "__main__":
    main()
