"""The strategy that a table of settings names, with its own hyper-parameters under `strategy.`."""

from collections.abc import Mapping

from protocol.errors import SettingsError
from protocol.settings import STRATEGY_PREFIX, Value, choose, nearest
from strategies import STRATEGIES, Strategy


def make_strategy(table: Mapping[str, Value]) -> Strategy:
    """The strategy `federation.strategy` with the hyper-parameters `strategy.NAME` of the table.

    Raises:
        SettingsError: the strategy or one of its hyper-parameters is unknown or out of range.
    """
    name = choose("federation.strategy", table["federation.strategy"], list(STRATEGIES))
    cls = STRATEGIES[name]
    own = cls.hyperparameters()
    given = {
        key.removeprefix(STRATEGY_PREFIX): value for key, value in table.items() if key.startswith(STRATEGY_PREFIX)
    }
    for key in given:
        if key not in own:
            hint = nearest(key, own, f"; {name} has: {', '.join(own)}")
            raise SettingsError(f"unknown setting 'strategy.{key}' of {name}{hint}")
    try:
        return cls(**given)
    except ValueError as error:
        raise SettingsError(f"strategy.{error}") from error
