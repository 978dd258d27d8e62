import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import at, path, update, updates


def test_momentum_by_hand() -> None:
    strategy = STRATEGIES["fedavgm"](server_lr=0.5, momentum=0.8)
    x = strategy.aggregate(at(0.0), updates(1.0))  # v = 1, x = .5
    assert x["w"][0] == 0.5
    x = strategy.aggregate(x, updates(1.0))  # D = .5, v = .8 + .5 = 1.3, x = .5 + .65 = 1.15
    assert x["w"][0] == pytest.approx(1.15, abs=1e-15)
    assert strategy.state["w"][0] == pytest.approx(1.3, abs=1e-15)


def test_the_update_is_weighted_by_examples_unless_told_otherwise() -> None:
    sites = [update("a", 1.0, examples=3), update("b", 5.0, examples=1)]
    assert STRATEGIES["fedavgm"](momentum=0.0).aggregate(at(0.0), sites)["w"][0] == 2.0
    assert STRATEGIES["fedavgm"](momentum=0.0, weighting="uniform").aggregate(at(0.0), sites)["w"][0] == 3.0


def test_without_momentum_it_is_fedavg() -> None:
    plain = path(STRATEGIES["fedavg"](), 20, 5)
    assert path(STRATEGIES["fedavgm"](momentum=0.0), 20, 5) == pytest.approx(plain, abs=1e-14)


def test_it_has_fedavgs_fixed_point() -> None:
    assert path(STRATEGIES["fedavgm"](momentum=0.5), 300, 5)[-1] == pytest.approx(2.6805322851, abs=1e-9)


def test_a_failed_round_leaves_the_momentum_as_it_was() -> None:
    strategy = STRATEGIES["fedavgm"]()
    x = strategy.aggregate(at(0.0), updates(1.0))

    def torn() -> object:
        yield updates(5.0)[0]
        raise RuntimeError("the line went dead")

    with pytest.raises(RuntimeError, match="dead"):
        strategy.aggregate(x, torn())
    assert strategy.state["w"][0] == 1.0


@pytest.mark.parametrize(
    ("name", "value"), [("momentum", 1.0), ("momentum", 1.5), ("momentum", -0.1), ("server_lr", -1.0)]
)
def test_hyperparameters_out_of_range_are_errors(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} = {value}"):
        STRATEGIES["fedavgm"](**{name: value})
