"""The strict loader: one flat table of settings becomes frozen dataclasses beside the code they configure.

The table and its defaults live in `[tool.flwr.app.config]` of pyproject.toml, Flower's own place. A scenario
is a YAML file of differences on it, nested or dotted; `--set KEY=VALUE` beats the scenario. Keys under
`strategy.` belong to the strategy, which checks itself (`protocol.strategy`).
"""

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from protocol.errors import SettingsError

Value = str | int | float | bool
Table = dict[str, Value]
Section = TypeVar("Section")

ROOT = Path(__file__).resolve().parent.parent
STRATEGY_PREFIX = "strategy."
OVERRIDES = "overrides"


def defaults() -> Table:
    """The complete table with its defaults, keys dotted (`train.lr`).

    Raises:
        SettingsError: pyproject.toml is not beside the code (a wheel without its source tree).
    """
    path = ROOT / "pyproject.toml"
    if not path.is_file():
        raise SettingsError(
            f"{path} is missing: it holds the default settings. Install from the source tree: pip install -e ."
        )
    config = tomllib.loads(path.read_text())["tool"]["flwr"]["app"]["config"]
    return flatten(config, "pyproject.toml")


def flatten(tree: Mapping[str, Any], where: str, prefix: str = "") -> Table:
    """A nested or dotted mapping as one flat table of dotted keys; `where` names its source in errors."""
    table: Table = {}
    for key, value in tree.items():
        if not isinstance(key, str):
            raise SettingsError(f"{where}: the key {key!r} must be a word like train.lr")
        name = prefix + key
        if isinstance(value, Mapping):
            table |= flatten(value, where, name + ".")
        elif isinstance(value, bool | int | float | str):
            table[name] = value
        else:
            raise SettingsError(
                f"{where}: {name} = {value!r} must be one word, number, true or false"
                " (write a list as words with commas between)"
            )
    return table


def load_scenario(path: Path) -> Table:
    """The differences in a YAML file, as a flat table.

    Raises:
        SettingsError: the file is missing, is not YAML, or is not a mapping of settings.
    """
    if not path.is_file():
        raise SettingsError(f"no scenario file {path}; see scenarios/ for examples")
    try:
        tree = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, Mapping):
        raise SettingsError(f"{path}: a scenario is a mapping of settings, like 'train: {{lr: 0.001}}'")
    return flatten(tree, str(path))


def parse_assignment(text: str) -> tuple[str, Value]:
    """One `KEY=VALUE` of the command line; the value stays a word until its key's type is known."""
    key, equals, word = text.partition("=")
    if not equals or not key.strip():
        raise SettingsError(f"--set {text!r}: write KEY=VALUE, like --set train.lr=3e-4")
    return key.strip(), word.strip()


def resolve(*differences: Mapping[str, Value]) -> Table:
    """The complete table: defaults, then each mapping of differences, later ones winning.

    Raises:
        SettingsError: a key is unknown (the nearest one is named) or a value has another type.
    """
    table = defaults()
    known = MappingProxyType(dict(table))
    for layer in differences:
        layer = dict(layer)
        layer |= _overrides(str(layer.pop(OVERRIDES, "")))
        for key, value in layer.items():
            table[key] = _checked(key, value, known)
    return table


def _overrides(text: str) -> Table:
    try:
        layer = json.loads(text or "{}")
    except ValueError as error:
        raise SettingsError(f"{OVERRIDES} = {text[:50]!r} is not JSON: {error}") from error
    if not isinstance(layer, dict):
        raise SettingsError(f"{OVERRIDES} = {text[:50]!r} is not a JSON object of settings")
    return layer


def _checked(key: str, value: Value, known: Mapping[str, Value]) -> Value:
    if key.startswith(STRATEGY_PREFIX):
        return _number(value)
    if key not in known:
        hint = nearest(key, known, "; pyproject.toml lists them all under [tool.flwr.app.config]")
        raise SettingsError(f"unknown setting {key!r}{hint}")
    return convert(key, value, type(known[key]))


def nearest(word: str, allowed: Iterable[str], otherwise: str) -> str:
    """The end of an error message: the nearest allowed word, or `otherwise` when none is near."""
    close = difflib.get_close_matches(word, list(allowed), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else otherwise


def _number(value: Value) -> Value:
    """A number from a word that is one, as of `--set` or of YAML, which reads 1e-4 as a word."""
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value


def convert(key: str, value: Value, kind: type) -> Value:
    """`value` as the type `kind` where nothing is lost; else an error that names key, value and type."""
    if kind is str:
        return value if isinstance(value, str) else str(value)
    if kind is bool and str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    number = _number(value)
    if (
        kind is not bool
        and isinstance(number, int | float)
        and not isinstance(number, bool)
        and math.isfinite(number)
    ):
        if kind is float:
            return number
        if number == int(number):
            return int(number)
    names = {bool: "true or false", int: "a whole number", float: "a number"}
    raise SettingsError(f"{key} = {value!r} must be {names[kind]}")


def section(table: Mapping[str, Value], prefix: str, cls: type[Section]) -> Section:
    """The dataclass `cls` filled from the keys `prefix.FIELD` of a complete table.

    Every field must be there (the table is the one home of defaults). A field of type `Literal` takes its
    allowed words from the annotation; ranges and combinations are checked by the class's `__post_init__`,
    which raises ValueError with a message that begins with the field's name (see `require`).

    Raises:
        SettingsError: a key is missing, a value has another type, is not allowed, or does not combine.
    """
    hints = get_type_hints(cls)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        key = f"{prefix}.{field.name}"
        if key not in table:
            raise SettingsError(f"the setting {key} is missing")
        hint = hints[field.name]
        if get_origin(hint) is Literal:
            values[field.name] = choose(key, table[key], [str(word) for word in get_args(hint)])
        else:
            value = convert(key, table[key], hint if isinstance(hint, type) else float)
            values[field.name] = float(value) if hint is float else value
    try:
        return cls(**values)
    except ValueError as error:
        raise SettingsError(f"{prefix}.{error}") from error


def choose(key: str, value: Value, words: list[str]) -> str:
    """`value` when it is one of `words`, else SettingsError with the nearest one."""
    if value not in words:
        raise SettingsError(f"{key} = {value!r} is not one of: {', '.join(words)}{nearest(str(value), words, '')}")
    return str(value)


def require(condition: bool, field: str, value: object, allowed: str) -> None:
    """A range check for a `__post_init__`: ValueError("FIELD = VALUE must be ALLOWED") unless `condition`."""
    if not condition:
        raise ValueError(f"{field} = {value!r} must be {allowed}")


def dump(table: Mapping[str, Value]) -> str:
    """A complete, replayable scenario: the table as YAML, nested by section."""
    tree: dict[str, Any] = {}
    for key, value in table.items():
        *path, leaf = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[leaf] = value
    return yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
