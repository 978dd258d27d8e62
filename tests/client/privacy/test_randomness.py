"""Draws and noise: their distributions, and that they repeat only when asked."""

import numpy as np
import pytest
import torch
from scipy.stats import binom, kstest

from client.privacy.draws import draw, rows_by_unit
from client.privacy.randomness import Randomness


def test_normals_and_uniforms_have_their_distributions() -> None:
    randomness = Randomness(seed=1)
    assert kstest(randomness.normals(100_001), "norm").pvalue > 1e-3
    assert kstest(randomness.uniforms(100_000), "uniform").pvalue > 1e-3


def test_no_number_is_0_or_1_whatever_the_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    """At 1 a patient would stay out of a step of all, and at 0 a normal number would be infinite."""
    for bits in (0, 2**64 - 1):
        monkeypatch.setattr(Randomness, "bits", lambda _, count, bits=bits: np.full(count, bits, np.uint64))
        assert ((numbers := Randomness().uniforms(3)) > 0).all()
        assert (numbers < 1).all()


def test_both_halves_of_the_polar_form_are_independent() -> None:
    normals = Randomness(seed=2).normals(100_000)
    assert abs(np.corrcoef(normals[:50_000], normals[50_000:])[0, 1]) < 4 / 50_000**0.5


def test_a_seed_repeats_and_the_system_does_not() -> None:
    assert (Randomness(7).normals(10) == Randomness(7).normals(10)).all()
    assert (Randomness(7).normals(10) != Randomness(8).normals(10)).all()
    assert (Randomness().normals(10) != Randomness().normals(10)).all()
    again = Randomness(7)
    assert (again.normals(10) != again.normals(10)).all()


@pytest.mark.gpu
def test_a_gpu_computes_the_same_normals() -> None:
    here, there = Randomness(7).normals(10_001), Randomness(7).normals(10_001, "cuda")
    assert there.device.type == "cuda"
    torch.testing.assert_close(there.cpu(), here, rtol=1e-12, atol=1e-12)


def test_units_are_patients_or_rows() -> None:
    patients = ["ann", "bob", "ann", "eve"]
    assert [rows.tolist() for rows in rows_by_unit(patients, "patient")] == [[0, 2], [1], [3]]
    assert [rows.tolist() for rows in rows_by_unit(patients, "example")] == [[0], [1], [2], [3]]


def test_a_step_has_at_most_one_image_of_a_patient_and_each_alike_often() -> None:
    units = rows_by_unit(["ann"] * 4 + ["bob"], "patient")
    randomness = Randomness(seed=3)
    steps = [draw(units, 0.5, randomness).tolist() for _ in range(4000)]
    assert all(sum(row < 4 for row in rows) <= 1 for rows in steps)
    of_ann = np.bincount([row for rows in steps for row in rows if row < 4], minlength=4)
    low, high = binom.interval(0.9999, 4000, 0.5 / 4)
    assert all(low <= count <= high for count in of_ann)


@pytest.mark.parametrize("rate", [0.02, 0.3, 1.0])
def test_each_patient_comes_by_a_coin_of_its_own(rate: float) -> None:
    units = rows_by_unit([str(row) for row in range(50)], "patient")
    randomness = Randomness(seed=4)
    sizes = np.array([len(draw(units, rate, randomness)) for _ in range(2000)])
    assert sizes.mean() == pytest.approx(50 * rate, abs=4 * (50 * rate * (1 - rate) / 2000) ** 0.5)
    assert sizes.var() == pytest.approx(50 * rate * (1 - rate), rel=0.2)
