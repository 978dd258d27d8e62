"""Site folders of generated phantoms, unlike on purpose: other organs, other machines, other lesion sizes."""

from pathlib import Path

import numpy as np

from client.splits import share_out
from protocol.seeds import seed_of
from simulation.appearance import Appearance
from simulation.phantoms import KINDS, phantom
from simulation.records import save_png
from simulation.writing import Row, write_csv

SHIFT = 0.5
"""Strength of the phantoms' own machines, to which `data.appearance` is added."""

RADIUS = (0.28, 0.56)
"""Bounds of the lesions' mean radius, as a share of half the side, over all sites."""

MOST_PICTURES = 3
"""Most pictures of one pretend patient; the fewest are one."""


def phantom_names(sites: int) -> list[str]:
    """The names of the sites; the kinds of picture take turns."""
    kinds = list(KINDS)
    return [f"site{number + 1}-{kinds[number % len(kinds)]}" for number in range(sites)]


def write_phantoms(
    folder: Path, seed: int, *, side: int, images: int, strength: float, val: float, test: float
) -> None:
    """Write one site folder; its name, with the seed, decides everything in it.

    Args:
        folder: SOMEWHERE/siteN-KIND.
        strength: of the site's own appearance, beyond `SHIFT`.
    """
    name = folder.name
    rng = np.random.default_rng(seed_of(seed, name, "site"))
    machine = Appearance.draw(SHIFT + strength, seed_of(seed, name, "machine"))
    typical = rng.uniform(*RADIUS)
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    patients = _patients(images, rng)
    words = share_out(patients, seed_of(seed, name, "split"), val, test)
    sizes = [float(np.clip(rng.normal(typical, 0.07), *RADIUS)) for _ in words]
    rows = []
    for number, patient in enumerate(patients):
        case = f"case{number + 1:04}"
        drawn = np.random.default_rng(seed_of(seed, name, case))
        near = (0.9 * sizes[patient], 1.1 * sizes[patient])
        image, mask = phantom(name.partition("-")[2], side, drawn, near)
        save_png(machine.apply(image, seed_of(seed, name, case, "noise")), folder / "images" / f"{case}.png")
        save_png(mask, folder / "masks" / f"{case}.png")
        rows.append(Row(case, words[patient], f"patient{patient + 1:03}", ""))
    write_csv(folder / "site.csv", rows)


def _patients(images: int, rng: np.random.Generator) -> list[int]:
    """The number of the patient of each picture, in order; at least two patients."""
    patients: list[int] = []
    while len(patients) < images:
        pictures = int(rng.integers(1, MOST_PICTURES + 1)) if patients else 1
        patients += [patients[-1] + 1 if patients else 0] * pictures
    return patients[:images]
