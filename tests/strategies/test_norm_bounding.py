import numpy as np
import pytest

from strategies import STRATEGIES, Update
from tests.strategies.quadratics import at, path, update, updates


def test_a_long_update_is_scaled_to_the_bound() -> None:
    x = STRATEGIES["norm_bounding"](max_norm=1.0).aggregate(at(10.0, 10.0), updates((13.0, 14.0)))
    assert x["w"] == pytest.approx([10.6, 10.8], abs=1e-14)


def test_the_bound_is_the_median_norm_by_default() -> None:
    # norms 1, 2, 50: M = 2, D = (1, -2, 2), weights 1, 1, 2
    sites = [update("a", 1.0), update("b", -2.0), update("c", 50.0, examples=2)]
    assert STRATEGIES["norm_bounding"]().aggregate(at(0.0), sites)["w"][0] == pytest.approx(0.75, abs=1e-15)
    uniform = STRATEGIES["norm_bounding"](weighting="uniform").aggregate(at(0.0), sites)
    assert uniform["w"][0] == pytest.approx(1 / 3, abs=1e-15)


def test_short_updates_are_fedavg() -> None:
    plain = path(STRATEGIES["fedavg"](), 20, 5, examples=(3, 1))
    assert path(STRATEGIES["norm_bounding"](max_norm=100.0), 20, 5, examples=(3, 1)) == pytest.approx(
        plain, abs=1e-14
    )


def test_the_norm_is_over_all_parameters_and_no_buffers() -> None:
    x = {"u": np.zeros(1), "w": np.zeros(1), "n.running_mean": np.zeros(1), "n.running_var": np.ones(1)}
    arrays = {"u": [3.0], "w": [4.0], "n.running_mean": [100.0], "n.running_var": [7.0]}
    y = Update("a", {name: np.array(value) for name, value in arrays.items()}, 1)
    after = STRATEGIES["norm_bounding"](max_norm=2.5).aggregate(x, [y])
    assert [after[name][0] for name in x] == [1.5, 2.0, 100.0, pytest.approx(7.0, abs=1e-9)]


def test_a_bound_that_is_not_positive_is_an_error() -> None:
    with pytest.raises(ValueError, match="max_norm = 0 must be a number above 0"):
        STRATEGIES["norm_bounding"](max_norm=0)
