"""Site folders for tests, drawn by hand."""

from pathlib import Path

import numpy as np
from PIL import Image


def draw(seed: int, side: int = 24) -> tuple[np.ndarray, np.ndarray]:
    """A picture (side, side, 3) like no other seed's, and a mask (side, side) of 0 and 1."""
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[4 : 8 + seed % 8, 5:15] = 1
    return image, mask


def make_site(folder: Path, cases: int = 12, csv: str = "", side: int = 24, first: int = 0) -> Path:
    """A sound site with cases c00, c01, ... of the pictures `first` and on; `csv` is the text of site.csv."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    for number in range(cases):
        image, mask = draw(first + number, side)
        Image.fromarray(image).save(folder / "images" / f"c{number:02}.png")
        Image.fromarray(mask).save(folder / "masks" / f"c{number:02}.png")
    if csv:
        (folder / "site.csv").write_text(csv)
    return folder
