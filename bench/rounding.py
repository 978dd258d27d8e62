"""How far gradients in float32 lie from those in float64, and how many pixels of pools change places by rounding.

Where two pixels of a pool are nearly alike, rounding decides which is the largest and has the gradient: so even the
network as it is written, on one device, has float32 gradients that are now and then far from those of float64.

    python bench/rounding.py [--draws 10] [--side 128] [--images 4]
"""

import argparse
import copy
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.table import Aim, heading, row
from urwkv import URWKV
from urwkv.losses import image_losses


def gradients(network: URWKV, images: Tensor, masks: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The gradient of all weights in float64, and where in each pool's windows the largest pixels are."""
    places: list[Tensor] = []
    handle = network.pool.register_forward_hook(
        lambda _, given, __: places.append(F.max_pool2d(given[0].detach(), 2, return_indices=True)[1])
    )
    image_losses(network(images), masks).sum().backward()
    handle.remove()
    return torch.cat([weight.grad.flatten().double() for weight in network.parameters()]), places


def draw(seed: int, count: int, side: int) -> str:
    """Of fresh weights and pictures of noise."""
    torch.manual_seed(seed)
    network, images = URWKV(norm="group"), torch.randn(count, 3, side, side)
    masks = torch.zeros(count, side, side, dtype=torch.uint8)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = 1
    exact, at = gradients(copy.deepcopy(network).double(), images.double(), masks)
    found, other = gradients(network, images, masks)
    moved = sum(int((a != b).sum()) for a, b in zip(at, other, strict=True))
    apart = ((found - exact).norm() / exact.norm()).item()
    return f"{apart:.1e} of their length; {moved} of {sum(a.numel() for a in at):,} pixels"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--images", type=int, default=4)
    words = parser.parse_args()
    heading()
    for seed in range(words.draws):
        row(f"draw {seed}", Aim(), lambda seed=seed: draw(seed, words.images, words.side))


if __name__ == "__main__":
    main()
