"""The phantoms: seeded, whole, of the size asked for, and different in kind."""

import numpy as np
import pytest

from simulation.phantoms import KINDS, phantom


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("side", [48, 65])
def test_shapes_and_labels(kind: str, side: int) -> None:
    image, mask = phantom(kind, side, np.random.default_rng(0))
    assert image.shape == (side, side, 3)
    assert mask.shape == (side, side)
    assert image.dtype == mask.dtype == np.uint8
    assert set(np.unique(mask)) == {0, 1}


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides(kind: str) -> None:
    once, again, other = (phantom(kind, 32, np.random.default_rng(seed)) for seed in (3, 3, 4))
    assert np.array_equal(once[0], again[0])
    assert np.array_equal(once[1], again[1])
    assert not np.array_equal(once[0], other[0])


def test_the_radius_is_half_the_side_times_its_share() -> None:
    def area(radius: float) -> float:
        masks = [phantom("dermoscopy", 64, np.random.default_rng(seed), (radius, radius))[1] for seed in range(30)]
        return float(np.mean(masks))

    # a disc of radius r in a square of side 2 covers pi r^2 / 4; squashing to 0.65-1 leaves 0.825 of it
    assert area(0.4) == pytest.approx(np.pi * 0.4**2 / 4 * 0.825, rel=0.15)
    assert area(0.2) == pytest.approx(area(0.4) / 4, rel=0.15)


@pytest.mark.parametrize(("kind", "darker"), [("ultrasound", True), ("dermoscopy", True), ("endoscopy", False)])
def test_lesions_can_be_told_from_what_surrounds_them(kind: str, darker: bool) -> None:
    inside, outside = [], []
    for seed in range(20):
        image, mask = phantom(kind, 64, np.random.default_rng(seed))
        grey = image.mean(axis=2)
        inside.append(grey[mask == 1].mean())
        outside.append(grey[mask == 0].mean())
    apart = np.array(outside) - np.array(inside)
    assert ((apart > 0) == darker).mean() >= 0.8


def test_ultrasound_is_grey_and_endoscopy_is_red() -> None:
    echo = phantom("ultrasound", 32, np.random.default_rng(1))[0]
    mucosa = phantom("endoscopy", 32, np.random.default_rng(1))[0]
    assert (echo[..., 0] == echo[..., 2]).all()
    assert mucosa[..., 0].mean() > 1.5 * mucosa[..., 2].mean()
