import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

from protocol.settings import ROOT
from strategies.sums import AT_ONCE, CompensatedSum

SIZE = 50


def test_it_keeps_what_a_plain_sum_loses() -> None:
    total = CompensatedSum(1)
    for value in (1e16, 1.0, -1e16):
        total.add(np.array([value]), 1.0)
    assert total.divided_by(1.0)[0] == 1.0
    assert 1e16 + 1.0 - 1e16 == 0.0


@pytest.mark.parametrize("count", range(1, 2 * AT_ONCE + 2))
def test_every_sum_is_the_exact_one_rounded(count: int) -> None:
    """Of magnitudes that differ by 10^12, in rational arithmetic; weights are whole, so the products are exact."""
    rng = np.random.default_rng(count)
    arrays = [
        (rng.standard_normal(SIZE) * 10.0 ** rng.integers(-6, 7, SIZE)).astype(np.float32) for _ in range(count)
    ]
    weights = rng.integers(1, 1000, count)
    total = CompensatedSum(SIZE)
    for array, weight in zip(arrays, weights, strict=True):
        total.add(array, float(weight))
    exact = [
        float(sum((Fraction(float(a[i])) * int(w) for a, w in zip(arrays, weights, strict=True)), Fraction(0)))
        for i in range(SIZE)
    ]
    assert total.divided_by(1.0).tolist() == exact


def test_kinds_of_arrays_may_be_mixed() -> None:
    """Of both widths, half precision, whole numbers, read-only, with strides, off their alignment."""
    shifted = np.frombuffer(bytearray(b"-" + np.arange(3, dtype=np.float32).tobytes()), np.float32, 3, 1)
    fixed = np.array([1.0, 2.0, 3.0], np.float32)
    fixed.flags.writeable = False
    kinds = [
        np.array([0.1, 0.2, 0.3]),
        fixed,
        np.arange(6, dtype=np.float32)[::2],
        np.array([1, 2, 3]),
        shifted,
        np.ones(3, np.float16),
        np.arange(3, dtype=np.float32),
    ] * 3
    total = CompensatedSum(3)
    for array in kinds:
        total.add(array, 2.0)
    exact = [float(sum(Fraction(float(a[i])) for a in kinds)) for i in range(3)]
    assert total.divided_by(2.0).tolist() == exact


def test_an_array_of_another_size_is_an_error() -> None:
    total = CompensatedSum(3)
    with pytest.raises(ValueError, match="an array of 2 numbers in a sum of 3"):
        total.add(np.ones(2, np.float32), 1.0)


def test_a_sum_is_read_once() -> None:
    total = CompensatedSum(3)
    with pytest.raises(ValueError, match="a sum of nothing"):
        total.divided_by(1.0)
    total.add(np.ones(3, np.float32), 1.0)
    first = total.divided_by(2.0)
    with pytest.raises(ValueError, match="one that was read before"):
        total.divided_by(2.0)
    with pytest.raises(ValueError, match="in a sum of 0"):
        total.add(np.ones(3, np.float32), 1.0)
    assert first.tolist() == [0.5] * 3


def test_over_zero_there_is_no_number_and_no_error() -> None:
    total = CompensatedSum(2)
    total.add(np.ones(2, np.float32), 0.0)
    assert np.isnan(total.divided_by(0.0)).all()


def test_who_does_not_sum_does_not_wait_for_the_compiler() -> None:
    code = "import sys, strategies, client.app; print('numba' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.strip() == "False"
