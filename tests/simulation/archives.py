"""Small folders laid out like the original archives of public data sets, and like the packed layout."""

from pathlib import Path

import numpy as np
from PIL import Image

from simulation.phantoms import phantom

SIDE = 32


def put(folder: Path, name: str, mask_folder: Path, mask_name: str, seed: int, kind: str = "ultrasound") -> None:
    """A picture and its mask, white on black."""
    image, mask = phantom(kind, SIDE, np.random.default_rng(seed))
    for path, pixels in ((folder / name, image), (mask_folder / mask_name, mask * 255)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)


def busi(root: Path, each: int = 10) -> None:
    for seed, group in enumerate(("benign", "malignant", "normal")):
        folder = root / "Dataset_BUSI_with_GT" / group
        for number in range(1, each + 1):
            put(folder, f"{group} ({number}).png", folder, f"{group} ({number})_mask.png", 100 * seed + number)


def kvasir(root: Path, count: int = 10) -> None:
    folder = root / "Kvasir-SEG"
    for n in range(count):
        put(folder / "images", f"cju{n}.jpg", folder / "masks", f"cju{n}.jpg", 1000 + n, "endoscopy")


def cvc_clinicdb(root: Path, frames: list[int], suffix: str = "tif") -> None:
    folder = root / "CVC-ClinicDB"
    for n in frames:
        put(folder / "Original", f"{n}.{suffix}", folder / "Ground Truth", f"{n}.{suffix}", 2000 + n, "endoscopy")


def isic2017(root: Path, counts: dict[str, int]) -> None:
    for seed, (part, count) in enumerate(counts.items()):
        images, masks = root / f"ISIC-2017_{part}_Data", root / f"ISIC-2017_{part}_Part1_GroundTruth"
        for n in range(count):
            name = f"ISIC_{1000 * seed + n:07}"
            put(images, f"{name}.jpg", masks, f"{name}_segmentation.png", 3000 + 100 * seed + n, "dermoscopy")
        (images / "ISIC_0000000_superpixels.png").write_bytes(b"?")
        (images / "metadata.csv").write_text("image_id\n")


def isic2018(root: Path, counts: dict[str, int]) -> None:
    for seed, (part, count) in enumerate(counts.items()):
        images, masks = root / f"ISIC2018_Task1-2_{part}_Input", root / f"ISIC2018_Task1_{part}_GroundTruth"
        for n in range(count):
            name = f"ISIC_{1000 * seed + n:07}"
            put(images, f"{name}.jpg", masks, f"{name}_segmentation.png", 3000 + 100 * seed + n, "dermoscopy")
        (images / "LICENSE.txt").write_text("terms")


def packed(folder: Path, count: int = 20, kind: str = "ultrasound", seed: int = 5000) -> None:
    """Pictures p000, p001, ...: every fourth in the list val, groups a and b, and p001 a twin of p000."""
    rows = ["name,group,fg,split1"]
    for n in range(count):
        put(folder / "images", f"p{n:03}.jpg", folder / "masks", f"p{n:03}.png", seed + n, kind)
        rows.append(f"p{n:03},{'ab'[n % 2]},0.1,{'val' if n % 4 == 3 else 'train'}")
    (folder / "meta.csv").write_text("\n".join(rows) + "\n")
    (folder / "near_duplicates.csv").write_text("name,cluster\np000,0\np001,0\n")
