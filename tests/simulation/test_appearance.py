"""The appearance of a site's machine: identity at strength 0, seeded, and as strong as asked."""

import numpy as np
import pytest

from simulation.appearance import Appearance

IMAGE = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)


def test_strength_0_is_the_identity_bit_for_bit() -> None:
    machine = Appearance.draw(0.0, seed=5)
    assert machine.neutral
    assert np.array_equal(machine.apply(IMAGE, seed=1), IMAGE)


def test_the_seeds_decide_machine_and_noise() -> None:
    machine = Appearance.draw(1.0, seed=5)
    assert machine == Appearance.draw(1.0, seed=5) != Appearance.draw(1.0, seed=6)
    assert np.array_equal(machine.apply(IMAGE, seed=1), machine.apply(IMAGE, seed=1))
    assert not np.array_equal(machine.apply(IMAGE, seed=1), machine.apply(IMAGE, seed=2))


def test_machines_brighten_and_darken() -> None:
    gammas = [Appearance.draw(1.0, seed).gamma for seed in range(20)]
    assert min(gammas) < 0.8 < 1.25 < max(gammas)


def test_gamma_and_gains_by_hand() -> None:
    grey = np.full((8, 8, 3), 128, np.uint8)
    seen = Appearance(gamma=2.0, gains=(1.0, 0.5, 2.0), noise=0.0, blur=0.0).apply(grey, seed=0)
    # 255 (128 / 255)^2 = 64.25
    assert seen[4, 4].tolist() == [64, 32, 129]


def test_noise_has_the_deviation_asked_for() -> None:
    grey = np.full((200, 200, 3), 128, np.uint8)
    seen = Appearance(1.0, (1.0, 1.0, 1.0), noise=6.0, blur=0.0).apply(grey, seed=0)
    assert seen.astype(float).std() == pytest.approx(6.0, rel=0.05)


def test_blur_spreads_a_point_and_keeps_its_light() -> None:
    point = np.zeros((41, 41, 3), np.uint8)
    point[20, 20] = 255
    seen = Appearance(1.0, (1.0, 1.0, 1.0), noise=0.0, blur=0.02).apply(point, seed=0)
    assert 0 < seen[20, 21, 0] < seen[20, 20, 0] < 255


def test_a_stronger_shift_changes_more() -> None:
    def change(strength: float) -> float:
        seen = [Appearance.draw(strength, seed).apply(IMAGE, seed) for seed in range(8)]
        return float(np.mean([np.abs(image.astype(int) - IMAGE).mean() for image in seen]))

    assert 0 < change(0.2) < change(0.6) < change(1.5)
