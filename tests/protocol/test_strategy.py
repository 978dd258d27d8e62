import pytest

from protocol.errors import SettingsError
from protocol.settings import resolve
from protocol.strategy import make_strategy


def test_hyperparameters_come_from_the_table() -> None:
    strategy = make_strategy(resolve({"federation.strategy": "fedavgm", "strategy.momentum": 0.5}))
    assert strategy.momentum == 0.5
    assert strategy.server_lr == 1.0


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ({"federation.strategy": "fedavgn"}, "federation.strategy = 'fedavgn' is not one of.*did you mean 'fedavg"),
        ({"federation.strategy": "fedprox", "strategy.mo": 1}, r"unknown setting 'strategy\.mo' of fedprox"),
        ({"federation.strategy": "fedprox", "strategy.mu": -1}, r"strategy\.mu = -1 must be a number at least 0"),
        ({"federation.strategy": "fedprox", "strategy.mu": "big"}, r"strategy\.mu = 'big' must be a number"),
    ],
)
def test_wrong_strategies_are_one_line_errors(differences: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_strategy(resolve(differences))
