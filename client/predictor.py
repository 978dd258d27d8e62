"""From pictures of any size to labels of the same size, as the network was trained or in tiles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from client.device import Place
from client.images import Pixels, read_image, to_square
from client.inference import Inference
from client.outlines import thumbnail
from client.repeated import recorder_at
from protocol.errors import DataError
from urwkv import URWKV
from urwkv.folded import folded
from urwkv.lean import lean
from urwkv.predict import predict_labels
from urwkv.tiles import tiled_logits

PIXELS = 2**20
"""Pixels in the network at a time: a gigabyte or less, and enough to fill a GPU."""

MOST = 64
"""Pictures or tiles in the network at a time."""


@dataclass(frozen=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: what the network is given, (h, w, C).
        height, width: of the picture itself.
        small: the picture as overlays show it; None where none is wanted.
    """

    path: Path
    pixels: Pixels
    height: int
    width: int
    small: Pixels | None


class Predictor:
    """A network on its device, and how pictures are given to it.

    Args:
        model: the network; a copy of it, its norms folded where that is exact and its layers joined where that pays,
            computes on the device.
        size: side of the squares to which pictures are resized, as they were for training.
        tile: side of the tiles in which pictures are given at their own resolution instead; 0: not in tiles.
    """

    def __init__(self, model: URWKV, place: Place, size: int, tile: int = 0) -> None:
        self.architecture = model.architecture
        fewer = lean(model, place.dtype) if place.device.type == "cuda" else folded(model)
        moved = fewer.to(place.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._logits = Inference(moved, place, recorder_at(place))
        self.place, self.size, self.tile = place, size, tile
        fits = max(1, min(MOST, PIXELS // (tile or size) ** 2))
        self.pictures = 1 if tile else fits
        """Pictures that `labels` takes at a time."""
        self._tiles = fits

    def read(self, path: Path, overlay: bool) -> Picture:
        """Decode a picture; of one that is resized nothing of its own size is kept.

        Raises:
            DataError: it cannot be decoded, or not be predicted in tiles.
        """
        picture = read_image(path, self.architecture.in_channels)
        width, height = picture.size
        if self.tile:
            if self.architecture.shift == "paper" and min(self.tile, width) != min(self.tile, height):
                raise DataError(
                    f"{path} is {width} x {height} pixels, and a model with shift = 'paper' needs square tiles: give"
                    f" a --tile up to {min(width, height)}"
                )
            pixels = np.array(picture).reshape(height, width, -1)
        else:
            pixels = to_square(picture, self.size)
        return Picture(path, pixels, height, width, thumbnail(picture) if overlay else None)

    @torch.inference_mode()
    def labels(self, pictures: Sequence[Picture], advance: Callable[[float], None]) -> list[Pixels]:
        """The labels (H, W) of pictures, each at its own size.

        Logits are resized, or blended, before one class is chosen for a pixel.

        Args:
            advance: told how many pictures more are done, in fractions where they are large.
        """
        if self.tile:
            return [self._in_tiles(picture, advance) for picture in pictures]
        logits = self._logits(torch.from_numpy(np.stack([picture.pixels for picture in pictures]))).float()
        found = []
        for one, picture in zip(logits, pictures, strict=True):
            whole = F.interpolate(one[None], (picture.height, picture.width), mode="bilinear", antialias=True)
            found.append(predict_labels(whole)[0].cpu().numpy())
            advance(1)
        return found

    def _in_tiles(self, picture: Picture, advance: Callable[[float], None]) -> Pixels:
        bands = []
        for logits in tiled_logits(self._logits, torch.from_numpy(picture.pixels), self.tile, self._tiles):
            bands.append(predict_labels(logits[None])[0].cpu().numpy())
            advance(len(bands[-1]) / picture.height)
        return np.concatenate(bands)
