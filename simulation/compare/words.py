"""What the user asks of a comparison, and the plan that follows from it, which is kept so that it can go on."""

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from protocol.atomic import write_atomic
from protocol.errors import RunError, SettingsError
from protocol.settings import STRATEGY_PREFIX, Table, choose, load_scenario, parse_assignment, resolve
from simulation.engines import ENGINES
from strategies import STRATEGIES

SCHEMA = 1
FILE = "plan.json"

LOCAL, ENSEMBLE, CENTRAL = "local", "ensemble", "central"
BASELINES = (LOCAL, ENSEMBLE, CENTRAL)

REFERENCE = "fedavg"
"""What the others are compared with, where it takes part; else the first strategy named."""

OWN = (STRATEGY_PREFIX, "train.lr", "train.optimizer", "train.weight_decay", "train.schedule")
"""Settings in which contestants may differ: none touches data, initial weights or the number of steps."""

Trial = dict[str, str]
"""Values of the tuned settings, by key."""


@dataclass(frozen=True)
class Words:
    """What stands on the command line; None or empty where nothing does."""

    scenario: Path | None = None
    sets: Sequence[str] = ()
    strategies: str | None = None
    seeds: int | None = None
    baselines: str | None = None
    own: Sequence[str] = ()
    tune: Sequence[str] = ()
    engine: str | None = None


@dataclass(frozen=True)
class Plan:
    """A comparison.

    Attributes:
        table: the complete settings that all share; its `seed` is the first seed.
        strategies: names in `strategies.STRATEGIES`.
        seeds: how many; they follow one another.
        baselines: names in `BASELINES`.
        own: settings of one contestant alone, by its name.
        tune: values to try for a setting, by key; every contestant tries each combination.
        engine: "local" or "ray".
    """

    table: Table
    strategies: tuple[str, ...]
    seeds: int = 1
    baselines: tuple[str, ...] = ()
    own: Mapping[str, Table] = field(default_factory=dict)
    tune: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    engine: str = "local"

    @property
    def reference(self) -> str:
        """The strategy that the others are compared with."""
        return REFERENCE if REFERENCE in self.strategies else self.strategies[0]

    @property
    def all_seeds(self) -> list[int]:
        """The seeds, the first one first."""
        first = int(self.table["seed"])
        return list(range(first, first + self.seeds))

    @property
    def trials(self) -> list[Trial]:
        """The combinations of values that everyone tries; one empty one when nothing is tuned."""
        return [dict(zip(self.tune, values, strict=True)) for values in itertools.product(*self.tune.values())]

    @property
    def trained(self) -> tuple[str, ...]:
        """The contestants that train: an ensemble is made of the local models."""
        local = (LOCAL,) if {LOCAL, ENSEMBLE} & set(self.baselines) else ()
        return (*self.strategies, *local, *((CENTRAL,) if CENTRAL in self.baselines else ()))


def plan_of(words: Words, before: Plan | None = None) -> Plan:
    """The plan that the words make; where they say nothing, that of the comparison that goes on.

    Raises:
        SettingsError: a name, a number or a setting is wrong, or nothing is to be compared.
    """
    differences = load_scenario(words.scenario) if words.scenario else {}
    assignments = dict(parse_assignment(text) for text in words.sets)
    for key in [*differences, *assignments]:
        if key.startswith(STRATEGY_PREFIX):
            raise SettingsError(f"{key} is one strategy's own: give it by --for NAME:{key}=VALUE")
    old = before or Plan(resolve(), ())
    said: dict[str, Any] = {"table": resolve(old.table, differences, assignments)}
    if words.strategies is not None:
        said["strategies"] = _names(words.strategies, "--strategies", list(STRATEGIES))
    if words.baselines is not None:
        said["baselines"] = _names(words.baselines, "--baselines", list(BASELINES))
    if words.seeds is not None:
        said["seeds"] = words.seeds
    if words.engine is not None:
        said["engine"] = choose("--engine", words.engine, list(ENGINES))
    if words.tune:
        said["tune"] = _tune(words.tune)
    plan = replace(old, **said)
    kept = {name: own for name, own in old.own.items() if name in plan.trained}
    plan = replace(plan, own=_own(words.own) if words.own else kept)
    _check(plan)
    return plan


def _check(plan: Plan) -> None:
    if not plan.strategies:
        raise SettingsError("--strategies is missing: name some, like --strategies fedavg,fedprox,fedadam")
    if plan.seeds < 1:
        raise SettingsError(f"--seeds = {plan.seeds} must be at least 1")
    for name in plan.own:
        choose("--for", name, list(plan.trained))
    for name, key in itertools.product(plan.own, plan.tune):
        if key in plan.own[name]:
            raise SettingsError(f"{key} is tuned for all, so --for {name}:{key} cannot fix it: leave out one of them")


def write_plan(folder: Path, plan: Plan) -> None:
    """Keep the plan in the comparison's folder."""
    write_atomic(folder / FILE, json.dumps({"schema": SCHEMA, **asdict(plan)}, indent=1))


def read_plan(folder: Path) -> Plan:
    """The plan that was kept.

    Raises:
        RunError: the folder holds none, or one of another version.
    """
    path = folder / FILE
    if not path.is_file():
        raise RunError(f"{folder} holds no comparison to go on with; start it without --resume")
    kept: dict[str, Any] = json.loads(path.read_text())
    if kept.pop("schema") != SCHEMA:
        raise RunError(f"{path} was written by another version; compare into another --out")
    return Plan(
        kept["table"],
        tuple(kept["strategies"]),
        kept["seeds"],
        tuple(kept["baselines"]),
        kept["own"],
        {key: tuple(values) for key, values in kept["tune"].items()},
        kept["engine"],
    )


def _names(text: str | None, option: str, allowed: list[str]) -> tuple[str, ...]:
    """Names with commas between, each allowed and named once, in the order given."""
    names = [word.strip() for word in (text or "").split(",") if word.strip()]
    return tuple(dict.fromkeys(choose(option, name, allowed) for name in names))


def _own(texts: Sequence[str]) -> dict[str, Table]:
    """Contestants' own settings from `NAME:KEY=VALUE,KEY=VALUE`."""
    own: dict[str, Table] = {}
    for text in texts:
        name, colon, rest = text.partition(":")
        if not colon or not rest:
            raise SettingsError(f"--for {text!r}: write NAME:KEY=VALUE,KEY=VALUE, like scaffold:train.optimizer=sgd")
        for assignment in rest.split(","):
            key, value = parse_assignment(assignment)
            own.setdefault(name.strip(), {})[_may_differ("--for", key)] = value
    return own


def _tune(texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Values to try from `KEY=V1,V2`."""
    tune: dict[str, tuple[str, ...]] = {}
    for text in texts:
        key, word = parse_assignment(text)
        values = tuple(dict.fromkeys(value.strip() for value in str(word).split(",") if value.strip()))
        if len(values) < 2:
            raise SettingsError(f"--tune {text!r}: give two values or more, like train.lr=1e-3,3e-3")
        if key.startswith(STRATEGY_PREFIX):
            raise SettingsError(
                f"--tune {key}: not all contestants have it, and all must try as much; fix it by --for"
            )
        tune[_may_differ("--tune", key)] = values
    return tune


def _may_differ(option: str, key: str) -> str:
    if key.startswith(STRATEGY_PREFIX) or key in OWN:
        return key
    choices = "strategy.*, " + ", ".join(OWN[1:])
    raise SettingsError(f"{option} {key}: contestants may differ in {choices} alone; --set {key} sets it for all")
