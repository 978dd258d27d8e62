import numpy as np
import pytest

from strategies import STRATEGIES, Update
from tests.strategies.quadratics import federate, gradient_steps


def test_one_local_step_reaches_the_global_optimum() -> None:
    assert federate(STRATEGIES["fedavg"](), gradient_steps(1), 300)[-1] == pytest.approx(3.0, abs=1e-12)


def test_five_local_steps_drift_to_the_known_fixed_point() -> None:
    # x = mean_i(b_i + (1 - .1 a_i)^5 (x - b_i)), so x = 2 (1 - .7^5) / (1 - (.9^5 + .7^5) / 2)
    assert federate(STRATEGIES["fedavg"](), gradient_steps(5), 300)[-1] == pytest.approx(2.6805322851, abs=1e-9)


def test_weights_are_shares_of_the_examples_received() -> None:
    x = {"w": np.zeros(1)}
    updates = [Update("a", {"w": np.array([1.0])}, 30), Update("b", {"w": np.array([5.0])}, 10)]
    assert STRATEGIES["fedavg"]().aggregate(x, updates)["w"][0] == 2.0
    assert STRATEGIES["fedavg"](weighting="uniform").aggregate(x, updates)["w"][0] == 3.0


def test_a_site_that_drops_out_leaves_the_weights_of_the_others_whole() -> None:
    x = {"w": np.zeros(1)}
    updates = [Update("a", {"w": np.array([1.0])}, 30), Update("b", {"w": np.array([5.0])}, 10)]
    assert STRATEGIES["fedavg"]().aggregate(x, updates[:1])["w"][0] == 1.0


def test_an_unknown_weighting_is_an_error() -> None:
    with pytest.raises(ValueError, match="weighting = 'size' must be one of: examples, uniform"):
        STRATEGIES["fedavg"](weighting="size")
