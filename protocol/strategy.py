"""The strategy that a table of settings names, with its own hyper-parameters under `strategy.`."""

from collections.abc import Mapping

from protocol.errors import SettingsError
from protocol.settings import STRATEGY_PREFIX, Value, choose, nearest
from strategies import STRATEGIES, Strategy
from strategies.local import LOSSES


def make_strategy(table: Mapping[str, Value]) -> Strategy:
    """The strategy `federation.strategy` with the hyper-parameters `strategy.NAME` of the table.

    Raises:
        SettingsError: the strategy or one of its hyper-parameters is unknown or out of range, or the strategy
            does not combine with another setting.
    """
    name = choose("federation.strategy", table["federation.strategy"], list(STRATEGIES))
    cls = STRATEGIES[name]
    own = cls.hyperparameters()
    given = {
        key.removeprefix(STRATEGY_PREFIX): value for key, value in table.items() if key.startswith(STRATEGY_PREFIX)
    }
    for key in given:
        if key not in own:
            hint = nearest(key, own, f"; {name} has: {', '.join(own)}" if own else f"; {name} has no settings")
            raise SettingsError(f"unknown setting 'strategy.{key}' of {name}{hint}")
    try:
        strategy = cls(**given)
    except ValueError as error:
        raise SettingsError(f"strategy.{error}") from error
    check_composition(strategy, table)
    return strategy


def needed_scalars(strategy: Strategy) -> tuple[str, ...]:
    """The scalars of a reply without which its update cannot be used; any other is the site's to withhold."""
    return ("train.images", *strategy.reports)


def check_composition(strategy: Strategy, table: Mapping[str, Value]) -> None:
    """What a strategy says it needs, against the settings around it.

    Raises:
        SettingsError: a setting does not go with the strategy; names the setting, why, and the cure.
    """
    name = table["federation.strategy"]
    if strategy.needs_sgd and table["train.optimizer"] != "sgd":
        raise SettingsError(
            f"train.optimizer = {table['train.optimizer']!r} does not go with {name}, which reads a site's update as"
            " a sum of gradients; use --set train.optimizer=sgd and a learning rate for it"
        )
    private = float(table["privacy.epsilon"]) > 0
    if private and strategy.needs_statistics:
        raise SettingsError(
            f"privacy.epsilon = {table['privacy.epsilon']} does not go with {name}, which is about batch statistics:"
            " they mix patients, and no noise covers them; use --set privacy.epsilon=0, or fedbn"
        )
    if strategy.needs_statistics and table["model.norm"] != "batch":
        raise SettingsError(
            f"model.norm = {table['model.norm']!r} does not go with {name}, which is about batch statistics;"
            " use --set model.norm=batch, or fedbn for other norms"
        )
    if int(table["train.epochs"]) < strategy.needs_epochs:
        raise SettingsError(
            f"train.epochs = {table['train.epochs']} does not go with {name}, which needs at least"
            f" {strategy.needs_epochs} local epochs a round; use --set train.epochs={strategy.needs_epochs}"
        )
    if private and set(strategy.reports) & set(LOSSES):
        raise SettingsError(
            f"privacy.epsilon = {table['privacy.epsilon']} does not go with {name}, which weighs sites by losses that"
            " no noise covers; use --set privacy.epsilon=0 or another strategy"
        )
    _check_sites(strategy, table)


def _check_sites(strategy: Strategy, table: Mapping[str, Value]) -> None:
    """Whether a round can have as many updates as the rule needs, once the number of sites is known."""
    sites, fraction = int(table["federation.sites"]), float(table["federation.fraction"])
    asked = max(1, round(fraction * sites))
    if sites and asked < strategy.fewest:
        raise SettingsError(
            f"federation.strategy = {table['federation.strategy']!r} needs the updates of at least {strategy.fewest}"
            f" sites a round, but of {sites} sites {asked} are asked; add sites, raise federation.fraction, or choose"
            " another strategy"
        )
