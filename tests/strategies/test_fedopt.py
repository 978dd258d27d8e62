import math

import numpy as np
import pytest

from strategies import STRATEGIES, Update
from tests.strategies.quadratics import at, path, update, updates

NAMES = ("fedadam", "fedyogi", "fedadagrad")


def test_fedadam_two_rounds_by_hand() -> None:
    strategy = STRATEGIES["fedadam"](server_lr=12.0, beta1=0.5, beta2=0.5, tau=1.0)
    x = strategy.aggregate(at(0.0), updates(7.0))  # m = 3.5, v = .5 + 24.5 = 25
    assert x["w"][0] == 7.0  # 12 * 3.5 / (5 + 1)
    x = strategy.aggregate(x, updates(8.0))  # D = 1: m = 1.75 + .5 = 2.25, v = 12.5 + .5 = 13
    assert x["w"][0] == pytest.approx(7 + 27 / (math.sqrt(13) + 1), abs=1e-14)


def test_fedyogi_two_rounds_by_hand() -> None:
    strategy = STRATEGIES["fedyogi"](server_lr=12.0, beta1=0.5, beta2=0.5, tau=1.0)
    x = strategy.aggregate(at(0.0), updates(7.0))  # m = 3.5, v = 1 + 24.5 = 25.5, since v < D^2
    first = 42 / (math.sqrt(25.5) + 1)
    assert x["w"][0] == pytest.approx(first, abs=1e-14)
    x = strategy.aggregate(x, updates(x["w"][0] + 1.0))  # D = 1: m = 2.25, v = 25.5 - .5 = 25, since v > D^2
    assert x["w"][0] == pytest.approx(first + 4.5, abs=1e-14)  # 12 * 2.25 / (5 + 1)


def test_fedadagrad_two_rounds_by_hand() -> None:
    strategy = STRATEGIES["fedadagrad"](server_lr=4.0, beta1=0.5, tau=3.0)
    x = strategy.aggregate(at(0.0), updates(4.0))  # m = 2, v = 9 + 16 = 25
    assert x["w"][0] == 1.0  # 4 * 2 / (5 + 3)
    x = strategy.aggregate(x, updates(13.0))  # D = 12: m = 1 + 6 = 7, v = 25 + 144 = 169
    assert x["w"][0] == 2.75  # 1 + 4 * 7 / (13 + 3)


@pytest.mark.parametrize("name", NAMES)
def test_the_mean_update_is_weighted_by_examples(name: str) -> None:
    weighted = STRATEGIES[name]().aggregate(at(0.0), [update("a", 1.0, 30), update("b", 5.0, 10)])
    assert weighted["w"] == STRATEGIES[name]().aggregate(at(0.0), updates(2.0))["w"]
    uniform = STRATEGIES[name](weighting="uniform").aggregate(at(0.0), [update("a", 1.0, 30), update("b", 5.0, 10)])
    assert uniform["w"] == STRATEGIES[name]().aggregate(at(0.0), updates(3.0))["w"]


@pytest.mark.parametrize("name", NAMES)
def test_they_rest_where_fedavg_does(name: str) -> None:
    rest = path(STRATEGIES["fedavg"](), 300, 5)[-1]
    assert path(STRATEGIES[name](server_lr=0.1), 10, 5, x=rest) == pytest.approx([rest] * 10, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_they_come_near_the_optimum_with_one_local_step(name: str) -> None:
    assert path(STRATEGIES[name](server_lr=0.5), 2000, 1)[-1] == pytest.approx(3.0, abs=1e-2)


@pytest.mark.parametrize("name", ["fedavgm", *NAMES])
def test_statistics_and_counters_never_see_the_optimizer(name: str) -> None:
    strategy = STRATEGIES[name](server_lr=1.0)
    x = {"n.running_mean": np.zeros(1), "n.running_var": np.ones(1), "n.num_batches_tracked": np.array(0)}
    for number in range(1, 6):
        arrays = {
            "n.running_mean": np.array([0.5]),
            "n.running_var": np.array([0.1]),
            "n.num_batches_tracked": np.array(number),
        }
        x = strategy.aggregate(x, [Update("a", arrays, 4)])
        assert x["n.running_mean"][0] == 0.5
        assert x["n.running_var"][0] == pytest.approx(0.1, abs=1e-16)
        assert x["n.num_batches_tracked"] == number
    assert strategy.state == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_round_leaves_the_moments_as_they_were(name: str) -> None:
    strategy = STRATEGIES[name]()
    x = strategy.aggregate(at(0.0), updates(1.0))
    before = {key: value.copy() for key, value in strategy.state.items()}
    with pytest.raises(ValueError, match="site b: w has shape"):
        strategy.aggregate(x, [*updates(3.0), Update("b", at(1.0, 2.0), 1)])
    assert strategy.state == before


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tau": 0.0}, "tau = 0.0 must be a number above 0"),
        ({"beta2": 1.1}, "beta2 = 1.1 must be a number at least 0 and below 1"),
        ({"beta1": 1.0}, "beta1 = 1.0 must be a number at least 0 and below 1"),
        ({"beta1": True}, "beta1 = True must be a number"),
        ({"server_lr": float("nan")}, "server_lr = nan must be a number at least 0"),
        ({"server_lr": float("inf")}, "server_lr = inf must be a number at least 0"),
    ],
)
def test_hyperparameters_out_of_range_are_errors(values: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        STRATEGIES["fedadam"](**values)
