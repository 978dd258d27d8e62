"""Pictures and masks that find each other by name, as most archives have them."""

from pathlib import Path

from client.site import IMAGE_SUFFIXES
from protocol.errors import DataError


def pairs(images: Path, masks: Path, mask_suffix: str = "") -> list[tuple[str, Path, Path]]:
    """(name, image, mask) for every picture in `images`, sorted; masks are NAME + `mask_suffix` + any suffix.

    Files that are no pictures, such as lists and licences, are passed over, and so are hidden ones and the
    superpixel maps of ISIC.

    Raises:
        DataError: a folder is missing or empty, or a picture has no mask.
    """
    pictures, drawn = _pictures(images), _pictures(masks)
    for name, image in pictures.items():
        if name + mask_suffix not in drawn:
            raise DataError(f"{image} has no mask {masks / (name + mask_suffix)}: unpack the archive again")
    return [(name, image, drawn[name + mask_suffix]) for name, image in pictures.items()]


def _pictures(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise DataError(f"{folder} is missing: unpack the archive again")
    found = {
        path.stem: path
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES
        and not path.name.startswith(".")
        and not path.stem.endswith("_superpixels")
    }
    if not found:
        raise DataError(f"{folder} holds no pictures: unpack the archive again")
    return found
