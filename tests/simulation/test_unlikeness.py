"""How unlike sites are: distances by hand, chance, and what is counted."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simulation.unlikeness import by_chance, describe, distances


def make(folder: Path, grey: int, lesion: int, cases: int = 10) -> Path:
    """A site of one grey whose lesions are squares of that side in pictures of side 20."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros((20, 20), np.uint8)
    mask[:lesion, :lesion] = 1
    for number in range(cases):
        Image.new("L", (20, 20), grey).save(folder / f"images/c{number}.png")
        Image.fromarray(mask).save(folder / f"masks/c{number}.png")
    rows = "".join(f"c{n},p{n}\n" for n in range(cases))
    (folder / "site.csv").write_text(
        "name,patient,split\n" + rows.replace("\n", ",train\n", cases - 1)[:-1] + ",val\n"
    )
    return folder


def test_distances_by_hand() -> None:
    histograms = np.array([[2.0, 0.0], [0.0, 2.0]])
    # each site to the even pool: H(3/4, 1/4) - (H(1, 0) + H(1/2, 1/2)) / 2 = 0.8113 - 0.5, and its root
    assert distances(histograms, np.array([0, 1])) == pytest.approx([0.5579, 0.5579], abs=1e-4)
    assert distances(np.array([[1.0, 3.0], [2.0, 6.0]]), np.array([0, 1])) == pytest.approx([0.0, 0.0], abs=1e-7)


def test_chance_is_small_for_many_and_large_for_few() -> None:
    rng = np.random.default_rng(0)
    few, many = (np.eye(5)[rng.integers(0, 5, count)] for count in (12, 2000))
    halves = [np.arange(len(rows)) % 2 for rows in (few, many)]
    assert 0 < by_chance(many, halves[1], rng) < 0.05 < by_chance(few, halves[0], rng)


def test_describe_counts_and_measures(tmp_path: Path) -> None:
    folders = [make(tmp_path / "dark", 40, lesion=4), make(tmp_path / "light", 200, lesion=12)]
    facts = describe(folders, seed=0, val=0.2, test=0.2)
    dark, light = facts.sites
    assert (dark.name, dark.counts, dark.patients) == ("dark", {"train": 9, "val": 1, "test": 0}, 10)
    assert (dark.lesion, light.lesion) == (16 / 400, 144 / 400)
    assert dark.brightness[0] == pytest.approx(40, abs=4)
    assert light.brightness[0] == pytest.approx(200, abs=4)
    assert sum(dark.lesion_bins) == pytest.approx(1)
    assert facts.lesion == facts.brightness == pytest.approx(0.5579, abs=1e-4)
    assert facts.lesion_by_chance < 0.4


def test_like_sites_are_alike(tmp_path: Path) -> None:
    folders = [make(tmp_path / name, 100, lesion=6) for name in ("a", "b", "c")]
    facts = describe(folders, seed=0, val=0.2, test=0.2)
    assert facts.lesion == facts.brightness == facts.lesion_by_chance == pytest.approx(0, abs=1e-7)
