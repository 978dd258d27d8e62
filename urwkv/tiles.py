"""Large images in tiles that overlap by half and fade into one another, a band of rows at a time.

Along one axis, tiles of n pixels begin at most n / 2 apart. Let r_j rise from 0 to 1 as sin^2 over n / 2 pixels
around the middle of tiles j - 1 and j, with r_0 = 1 and r = 0 after the last. The blended logits are

    sum_j (r_j - r_{j+1}) y_j,

whose shares are 0 or more, add up to 1, and vanish where tile j ends. So where tiles disagree by d, the blend
moves from pixel to pixel by at most d pi / n, where a cut would jump by d. Over rows and columns shares multiply.
"""

import itertools
import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

Network = Callable[[Tensor], Tensor]


def tiled_logits(network: Network, image: Tensor, tile: int, batch: int) -> Iterator[Tensor]:
    """The blended logits of an image at its own resolution, in bands (num_classes, rows, W) from the top down.

    Never more is kept than the bands that overlap: memory grows with the width of the image, not its height. An
    image that fits into one tile is one crop, and its logits are the network's own.

    Args:
        network: crops (B, h, w, C) to logits (B, num_classes, h, w); h and w are `tile`, or a smaller side of
            the image.
        image: (H, W, C), in whatever form `network` takes.
        tile: side of a tile in pixels, at least 2.
        batch: tiles that are given to `network` at a time.

    Yields:
        float32, on the device of the logits.
    """
    height = image.shape[0]
    side = min(tile, height)
    bands = _Blend(height, side)
    for top in bands.starts:
        yield bands.add(_band(network, image[top : top + side], tile, batch))


def _band(network: Network, rows: Tensor, tile: int, batch: int) -> Tensor:
    """The logits (num_classes, h, W) of a row of tiles over the whole width."""
    width = rows.shape[1]
    side = min(tile, width)
    columns = _Blend(width, side)
    done = []
    for first in range(0, len(columns.starts), batch):
        crops = [rows[:, left : left + side] for left in columns.starts[first : first + batch]]
        for logits in network(torch.stack(crops)).transpose(2, 3):
            done.append(columns.add(logits))
    return torch.cat(done, dim=1).transpose(1, 2)


class _Blend:
    """Tiles (num_classes, n, ...) along one axis, given in order, blended; hands out what no later one reaches.

    Attributes:
        starts: where the tiles begin: the first at 0, the last at the end, evenly spaced, at most n / 2 apart.
    """

    def __init__(self, length: int, side: int) -> None:
        steps = math.ceil((length - side) / max(side // 2, 1))
        self.starts = [round(step * (length - side) / max(steps, 1)) for step in range(steps + 1)]
        middles = [-math.inf, *((a + b + side) / 2 for a, b in itertools.pairwise(self.starts)), math.inf]
        complete = (after - start for start, after in itertools.pairwise([*self.starts, length]))
        self.plan = zip(self.starts, itertools.pairwise(middles), complete, strict=True)
        self.side = side
        self.pending: Tensor | None = None

    def add(self, tile: Tensor) -> Tensor:
        """Blend the next tile in: (num_classes, complete places, ...), float32."""
        start, (rises, falls), complete = next(self.plan)
        share = self._risen(start - rises) - self._risen(start - falls)
        mixed = tile.float() * share.to(tile.device).view(1, -1, 1)
        if self.pending is not None:
            mixed[:, : self.pending.shape[1]] += self.pending
        self.pending = mixed[:, complete:]
        return mixed[:, :complete]

    def _risen(self, beyond: float) -> Tensor:
        """How far r has risen at the pixels of a tile that starts `beyond` pixels after the middle of the rise."""
        way = (torch.arange(self.side) + 0.5 + beyond) / (self.side / 2) + 0.5
        return torch.sin(way.clamp(0, 1) * (math.pi / 2)).square()
