import pytest

from protocol.errors import SettingsError
from protocol.settings import resolve
from protocol.strategy import make_strategy


def test_hyperparameters_come_from_the_table() -> None:
    strategy = make_strategy(resolve({"federation.strategy": "fedavgm", "strategy.momentum": 0.5}))
    assert strategy.momentum == 0.5
    assert strategy.server_lr == 1.0


SGD = {"train.optimizer": "sgd"}


@pytest.mark.parametrize("name", ["scaffold", "fednova", "qfedavg"])
def test_what_reads_gradients_from_updates_needs_sgd(name: str) -> None:
    with pytest.raises(SettingsError, match=rf"train\.optimizer = 'adamw' does not go with {name}.*optimizer=sgd"):
        make_strategy(resolve({"federation.strategy": name}))
    assert make_strategy(resolve({"federation.strategy": name, **SGD}))


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        ({"federation.strategy": "silobn"}, r"model\.norm = 'group' does not go with silobn.*model\.norm=batch"),
        (
            {"federation.strategy": "fedrep", "train.epochs": 1},
            r"train\.epochs = 1 does not go with fedrep.*epochs=2",
        ),
        (
            {"federation.strategy": "qfedavg", "privacy.epsilon": 8, **SGD},
            r"privacy\.epsilon = 8.* does not go with qfedavg.*privacy\.epsilon=0",
        ),
        ({"federation.strategy": "feddg_ga", "privacy.epsilon": 8}, r"privacy\.epsilon = 8.*feddg_ga"),
        (
            {"federation.strategy": "krum", "federation.sites": 4},
            r"'krum' needs the updates of at least 5 sites a round, but of 4 sites 4 are asked; add sites",
        ),
        (
            {"federation.strategy": "median", "federation.sites": 5, "federation.fraction": 0.4},
            r"'median' needs the updates of at least 3 sites a round, but of 5 sites 2 are asked",
        ),
    ],
)
def test_what_does_not_go_together_names_the_setting_and_the_cure(differences: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_strategy(resolve(differences))


@pytest.mark.parametrize(
    "differences",
    [
        {"federation.strategy": "silobn", "model.norm": "batch"},
        {"federation.strategy": "fedrep", "train.epochs": 2},
        {"federation.strategy": "krum", "federation.sites": 5},
        {"federation.strategy": "norm_bounding", "federation.sites": 2, "strategy.max_norm": 1.5},
        {"federation.strategy": "scaffold", "privacy.epsilon": 8, **SGD},
    ],
)
def test_what_goes_together_is_made(differences: dict[str, object]) -> None:
    assert make_strategy(resolve(differences))


@pytest.mark.parametrize(
    ("differences", "words"),
    [
        (
            {"federation.strategy": "median", "strategy.trim": 0.1},
            r"unknown setting 'strategy\.trim' of median; median has",
        ),
        ({"federation.strategy": "fedavgn"}, "federation.strategy = 'fedavgn' is not one of.*did you mean 'fedavg"),
        ({"federation.strategy": "fedprox", "strategy.mo": 1}, r"unknown setting 'strategy\.mo' of fedprox"),
        ({"federation.strategy": "fedprox", "strategy.mu": -1}, r"strategy\.mu = -1 must be a number at least 0"),
        ({"federation.strategy": "fedprox", "strategy.mu": "big"}, r"strategy\.mu = 'big' must be a number"),
    ],
)
def test_wrong_strategies_are_one_line_errors(differences: dict[str, object], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        make_strategy(resolve(differences))
