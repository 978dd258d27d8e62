"""Pictures and masks as arrays: one way of decoding for training, evaluation, prediction and the check."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from client.site import Case
from protocol.errors import DataError

Pixels = npt.NDArray[np.uint8]

MODES = {1: "L", 3: "RGB"}
MANY = 8
"""More unexpected values than this in a mask are a blur, not labels."""


def read_image(path: Path, in_channels: int) -> Image.Image:
    """An image, upright by its EXIF orientation, as 8-bit grey (1 channel) or RGB (3).

    Grey is repeated over three channels; 16-bit values are scaled so that 65535 becomes 255; transparency is
    dropped.

    Raises:
        DataError: the file cannot be decoded, or holds pixels of more than 16 bits or several pages.
    """
    if in_channels not in MODES:
        raise DataError(f"images are grey or colour: model.in_channels = {in_channels} must be 1 or 3")
    picture = ImageOps.exif_transpose(open_picture(path))
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture, np.uint16) // 257).astype(np.uint8))
    elif picture.mode in ("I", "F"):
        raise DataError(f"{path} has pixels of 32 bits: save it with 8 or 16 bits a channel")
    return picture.convert(MODES[in_channels])


def read_mask(path: Path, num_classes: int) -> Pixels:
    """The labels of a mask (H, W).

    Where there is one class of foreground, a mask of just 0 and 255 is read as 0 and 1.

    Raises:
        DataError: the file cannot be decoded, is a colour picture, or has values that are no label.
    """
    return to_labels(path, read_values(path), num_classes)


def read_values(path: Path) -> npt.NDArray[np.integer]:
    """The values of a mask (H, W) as the file has them; of a palette, the indices.

    Raises:
        DataError: the file cannot be decoded or is a colour picture.
    """
    picture = open_picture(path)
    values = np.asarray(picture)
    if values.ndim == 3:
        if picture.mode not in ("LA", "PA") and (values[..., :3] != values[..., :1]).any():
            raise DataError(f"{path} is a colour picture: save the mask as one channel of integer labels")
        values = values[..., 0]
    return values


def to_labels(path: Path, values: npt.NDArray[np.integer], num_classes: int) -> Pixels:
    """The values of the mask `path` as labels (H, W), by the rules of `read_mask`."""
    highest = max(1, num_classes - 1)
    found = np.unique(values).tolist()
    if highest == 1 and 255 in found and set(found) <= {0, 255}:
        return (values == 255).astype(np.uint8)
    strange = [int(value) for value in found if not 0 <= value <= highest]
    if len(strange) > MANY:
        shades = ", ".join(map(str, strange[:3]))
        raise DataError(
            f"{path} has grey values such as {shades}: JPEG or smooth resizing blurred it; save integer labels"
            f" 0 to {highest} as PNG"
        )
    if strange:
        raise DataError(
            f"{path} has the label {strange[0]}, but model.num_classes = {num_classes} allows 0 to {highest}:"
            " correct the mask or the setting"
        )
    return values.astype(np.uint8)


def read_case(case: Case, size: int, in_channels: int, num_classes: int) -> tuple[Pixels, Pixels]:
    """One case at the side `size`: image (size, size, in_channels) and labels (size, size).

    The picture is stretched to the square; pixels by antialiased linear interpolation, labels by the nearest.

    Raises:
        DataError: image or mask cannot be used, or their sizes differ.
    """
    picture, labels = read_image(case.image, in_channels), read_mask(case.mask, num_classes)
    refuse_other_size(case, picture, labels)
    nearest = Image.fromarray(labels).resize((size, size), Image.Resampling.NEAREST)
    return to_square(picture, size), np.asarray(nearest)


def to_square(picture: Image.Image, size: int) -> Pixels:
    """A picture of `read_image` as (size, size, channels), areas averaged: what the network is trained on."""
    pixels = np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))
    return pixels.reshape(size, size, -1)


def refuse_other_size(case: Case, picture: Image.Image, labels: Pixels) -> None:
    """DataError when the mask has another size than the image."""
    (width, height), (rows, columns) = picture.size, labels.shape
    if (height, width) != (rows, columns):
        raise DataError(
            f"{case.mask} is {columns} x {rows} pixels, but its image is {width} x {height}: export the mask at the"
            " image's size"
        )


def open_picture(path: Path) -> Image.Image:
    """The decoded file, closed."""
    try:
        with Image.open(path) as picture:
            pages = getattr(picture, "n_frames", 1)
            picture.load()
    except UnidentifiedImageError as error:
        raise DataError(f"{path} is not an image that can be read: export it again as PNG") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} cannot be read ({error}): export it again as PNG") from error
    if pages > 1:
        raise DataError(f"{path} holds {pages} pages: save each picture as a file of its own")
    return picture
