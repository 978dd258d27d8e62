import numpy as np
import pytest

from strategies import STRATEGIES, Update
from tests.strategies.quadratics import federate, gradient_steps


def one(value: float) -> list[Update]:
    return [Update("a", {"w": np.array([value])}, 4)]


def test_momentum_by_hand() -> None:
    strategy = STRATEGIES["fedavgm"](server_lr=0.5, momentum=0.8)
    x = {"w": np.array([0.0])}
    x = strategy.aggregate(x, one(1.0))  # v = 1, x = .5
    assert x["w"][0] == 0.5
    x = strategy.aggregate(x, one(1.0))  # D = .5, v = .8 + .5 = 1.3, x = .5 + .65 = 1.15
    assert x["w"][0] == pytest.approx(1.15, abs=1e-15)
    assert strategy.state["w"][0] == pytest.approx(1.3, abs=1e-15)


def test_without_momentum_it_is_fedavg() -> None:
    plain = federate(STRATEGIES["fedavg"](), gradient_steps(5), 20)
    assert federate(STRATEGIES["fedavgm"](momentum=0.0), gradient_steps(5), 20) == pytest.approx(plain, abs=1e-14)


def test_it_has_fedavgs_fixed_point() -> None:
    end = federate(STRATEGIES["fedavgm"](momentum=0.5), gradient_steps(5), 300)[-1]
    assert end == pytest.approx(2.6805322851, abs=1e-9)


def test_statistics_get_no_momentum() -> None:
    strategy = STRATEGIES["fedavgm"](server_lr=1.0, momentum=0.9)
    x = {"bn.running_mean": np.array([0.0]), "bn.running_var": np.array([1.0])}
    y = {"bn.running_mean": np.array([0.0]), "bn.running_var": np.array([0.1])}
    for _ in range(5):
        x = strategy.aggregate(x, [Update("a", y, 4)])
        assert x["bn.running_var"][0] == 0.1
    assert strategy.state == {}


def test_a_failed_round_leaves_the_momentum_as_it_was() -> None:
    strategy = STRATEGIES["fedavgm"]()
    x = strategy.aggregate({"w": np.array([0.0])}, one(1.0))

    def torn() -> object:
        yield one(5.0)[0]
        raise RuntimeError("the line went dead")

    with pytest.raises(RuntimeError, match="dead"):
        strategy.aggregate(x, torn())
    assert strategy.state["w"][0] == 1.0


@pytest.mark.parametrize(("name", "value"), [("momentum", 1.5), ("momentum", -0.1), ("server_lr", -1.0)])
def test_hyperparameters_out_of_range_are_errors(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        STRATEGIES["fedavgm"](**{name: value})
