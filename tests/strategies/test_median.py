import numpy as np
import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import at, updates


def test_the_median_is_taken_coordinate_by_coordinate() -> None:
    sites = updates((1.0, 50.0), (2.0, -7.0), (1e9, 3.0))
    assert STRATEGIES["median"]().aggregate(at(0.0, 0.0), sites)["w"].tolist() == [2.0, 3.0]


def test_of_an_even_number_it_is_the_mean_of_the_middle_two() -> None:
    assert STRATEGIES["median"]().aggregate(at(0.0), updates(1.0, 1e9, 2.0, 5.0))["w"][0] == 3.5


def test_the_median_ignores_examples() -> None:
    sites = updates(1.0, 2.0, 3.0)
    object.__setattr__(sites[2], "examples", 10**6)
    assert STRATEGIES["median"]().aggregate(at(0.0), sites)["w"][0] == 2.0


@pytest.mark.parametrize(
    ("values", "trim", "expected"),
    [
        ((-1e9, 2.0, 1e9), 0.2, 2.0),  # n = 3: one on each side
        ((-1e9, 2.0, 4.0, 1e9), 0.2, 3.0),  # n = 4: one on each side, though .2 * 4 < 1
        ((-1e9, 1.0, 2.0, 6.0, 1e9), 0.2, 3.0),  # n = 5
        ((-1e9, -1e8, 1.0, 2.0, 3.0, 4.0, 5.0, 9.0, 1e8, 1e9), 0.2, 4.0),  # n = 10: two on each side
        ((-1e9, 1.0, 3.0, 1e9), 0.0, 2.0),  # never none
        ((-1e9, -1e8, -1e7, 3.0, 5.0, 1e7, 1e8, 1e9), 0.4, 4.0),  # floor(.4 * 8) = 3
    ],
)
def test_trimming_by_hand(values: tuple[float, ...], trim: float, expected: float) -> None:
    shuffled = np.random.default_rng(0).permutation(values)
    assert STRATEGIES["trimmed_mean"](trim=trim).aggregate(at(0.0), updates(*shuffled))["w"][0] == expected


def test_a_trim_of_a_fifth_is_not_lost_to_rounding() -> None:
    # .29 * 100 is 28.999999999999996 in floats, but 29 sites on each side are meant
    values = np.r_[np.full(29, -1e9), np.arange(42.0), np.full(29, 1e9)]
    assert STRATEGIES["trimmed_mean"](trim=0.29).aggregate(at(0.0), [*updates(*values)])["w"][0] == pytest.approx(
        20.5, abs=1e-12
    )


@pytest.mark.parametrize("name", ["median", "trimmed_mean"])
def test_large_tensors_are_ranked_whole(name: str) -> None:
    rng = np.random.default_rng(1)
    values = rng.standard_normal((5, 200_003))
    result = STRATEGIES[name]().aggregate({"w": np.zeros(200_003)}, updates(*values))["w"]
    expected = np.median(values, axis=0) if name == "median" else np.sort(values, axis=0)[1:4].mean(axis=0)
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("trim", [0.5, -0.1])
def test_an_impossible_trim_is_an_error(trim: float) -> None:
    with pytest.raises(ValueError, match=f"trim = {trim} must be a number at least 0 and below 0.5"):
        STRATEGIES["trimmed_mean"](trim=trim)
