import math

import numpy as np
import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import at, update, updates


def test_the_fermat_point_of_a_right_triangle() -> None:
    # (0, 0), (1, 0), (0, 1): all angles at the point are 120 degrees at ((3 - sqrt 3) / 6, the same)
    result = STRATEGIES["geometric_median"]().aggregate(at(0.0, 0.0), updates((0.0, 0.0), (1.0, 0.0), (0.0, 1.0)))
    assert result["w"] == pytest.approx([(3 - math.sqrt(3)) / 6] * 2, abs=1e-8)


def test_the_diagonals_of_a_quadrilateral_cross_there() -> None:
    corners = updates((0.0, 0.0), (4.0, 4.0), (0.0, 2.0), (4.0, 0.0))  # y = x and y = 2 - x / 2 cross at x = 4/3
    result = STRATEGIES["geometric_median"]().aggregate(at(9.0, 9.0), corners)
    assert result["w"] == pytest.approx([4 / 3, 4 / 3], abs=1e-8)


def test_the_majority_wins_however_far_the_others_go() -> None:
    result = STRATEGIES["geometric_median"]().aggregate(at(0.0), updates(2.0, 2.0, 1e9))
    assert result["w"][0] == pytest.approx(2.0, abs=1e-5)


def test_examples_make_a_majority_unless_told_otherwise() -> None:
    sites = [update("a", 0.0, 3), update("b", 10.0, 1), update("c", 20.0, 1)]
    assert STRATEGIES["geometric_median"]().aggregate(at(5.0), sites)["w"][0] == pytest.approx(0.0, abs=1e-5)
    uniform = STRATEGIES["geometric_median"](weighting="uniform").aggregate(at(5.0), sites)
    assert uniform["w"][0] == pytest.approx(10.0, abs=1e-5)


def test_a_wide_smoothing_is_the_mean() -> None:
    result = STRATEGIES["geometric_median"](nu=100.0).aggregate(at(0.0), updates(0.0, 0.0, 9.0))
    assert result["w"][0] == pytest.approx(3.0, abs=1e-15)


def test_no_point_near_by_is_closer_to_all() -> None:
    rng = np.random.default_rng(0)
    points = rng.standard_normal((7, 40)) * rng.uniform(0.1, 5, (7, 1))
    result = STRATEGIES["geometric_median"]().aggregate({"w": np.ones(40)}, updates(*points))["w"]

    def total(v: np.ndarray) -> float:
        return float(np.linalg.norm(points - v, axis=1).sum())

    for _ in range(50):
        assert total(result) < total(result + 1e-3 * rng.standard_normal(40))


def test_distances_are_over_all_tensors_and_large_ones() -> None:
    spread = np.zeros(200_000)
    spread[-1] = 1.0
    apart = STRATEGIES["geometric_median"]().aggregate(
        {"w": np.zeros(200_000)}, updates(spread * 0, spread, spread * 0)
    )
    assert np.abs(apart["w"]).max() < 1e-5


def test_no_smoothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="nu = 0 must be a number above 0"):
        STRATEGIES["geometric_median"](nu=0)
