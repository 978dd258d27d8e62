from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from protocol import settings
from protocol.errors import SettingsError


@dataclass(frozen=True)
class Oven:
    heat: float
    minutes: int
    fan: bool
    shelf: Literal["top", "middle"]
    share: int | float

    def __post_init__(self) -> None:
        settings.require(self.heat <= 250, "heat", self.heat, "at most 250")


OVEN = {"oven.heat": 200, "oven.minutes": 30, "oven.fan": True, "oven.shelf": "top", "oven.share": 2}


def test_a_table_becomes_a_dataclass_with_the_types_it_declares() -> None:
    oven = settings.section(OVEN, "oven", Oven)
    assert oven == Oven(200.0, 30, True, "top", 2)
    assert isinstance(oven.heat, float)
    assert isinstance(oven.share, int)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("oven.heat", 300, "oven.heat = 300.0 must be at most 250"),
        ("oven.heat", "hot", "oven.heat = 'hot' must be a number"),
        ("oven.minutes", 1.5, "oven.minutes = 1.5 must be a whole number"),
        ("oven.minutes", True, "oven.minutes = True must be a whole number"),
        ("oven.fan", "yes", "oven.fan = 'yes' must be true or false"),
        ("oven.shelf", "midle", "oven.shelf = 'midle' is not one of: top, middle; did you mean 'middle'"),
    ],
)
def test_a_wrong_value_names_key_value_and_what_is_allowed(key: str, value: object, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        settings.section(OVEN | {key: value}, "oven", Oven)


def test_a_missing_key_is_named() -> None:
    with pytest.raises(SettingsError, match=r"oven\.fan is missing"):
        settings.section({k: v for k, v in OVEN.items() if k != "oven.fan"}, "oven", Oven)


def test_differences_beat_defaults_and_later_ones_earlier_ones() -> None:
    table = settings.resolve({"train.lr": 0.1, "seed": 3}, {"train.lr": "3e-4"})
    assert table["train.lr"] == 3e-4
    assert table["seed"] == 3
    assert table["train.batch"] == settings.defaults()["train.batch"]


def test_a_typo_names_the_nearest_key() -> None:
    with pytest.raises(SettingsError, match=r"unknown setting 'train\.bacth'; did you mean 'train\.batch'\?"):
        settings.resolve({"train.bacth": 8})


def test_a_strategys_own_settings_pass_through_as_numbers() -> None:
    assert settings.resolve({"strategy.mu": "1e-2"})["strategy.mu"] == 0.01


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("train.epochs=3", 3),
        ("train.augment=false", False),
        ("train.augment=True", True),
        ("train.lr=3e-4", 3e-4),
        ("tracking.experiment=0012", "0012"),
        ("tracking.uri=off", "off"),
        ("federation.quorum=2", 2),
        ("federation.quorum=0.5", 0.5),
    ],
)
def test_an_assignment_takes_the_type_of_its_key(assignment: str, value: object) -> None:
    key, word = settings.parse_assignment(assignment)
    resolved = settings.resolve({key: word})[key]
    assert (resolved, type(resolved)) == (value, type(value))


@pytest.mark.parametrize("word", ["inf", "nan", "-inf", "1e400"])
@pytest.mark.parametrize("key", ["train.batch", "train.lr", "federation.deadline"])
def test_numbers_are_finite(key: str, word: str) -> None:
    with pytest.raises(SettingsError, match=f"{key} = '{word}' must be a"):
        settings.resolve({key: word})


@pytest.mark.parametrize("text", ["abc", "5", "[1]"])
def test_overrides_that_are_no_table_are_an_error(text: str) -> None:
    with pytest.raises(SettingsError, match="overrides = "):
        settings.resolve({"overrides": text})


def test_overrides_carry_a_whole_table() -> None:
    assert settings.resolve({"overrides": '{"train.epochs": 5, "strategy.mu": 0.1}'})["train.epochs"] == 5


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("train.lr=3e-4", ("train.lr", "3e-4")),
        ("train.epochs = 3", ("train.epochs", "3")),
        ("tracking.experiment=0012", ("tracking.experiment", "0012")),
        ("tracking.uri=http://h:5000", ("tracking.uri", "http://h:5000")),
        ("data.root=", ("data.root", "")),
    ],
)
def test_assignments_stay_words_until_their_type_is_known(text: str, pair: tuple[str, object]) -> None:
    assert settings.parse_assignment(text) == pair


def test_an_assignment_without_equals_is_an_error() -> None:
    with pytest.raises(SettingsError, match="write KEY=VALUE"):
        settings.parse_assignment("train.lr")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("train: [1, 2", "is not valid YAML"),
        ("- a\n- b", "a scenario is a mapping"),
        ("train:\n  lr: [1, 2]", r"train\.lr = \[1, 2\] must be one word"),
        ("1: 2", "the key 1 must be a word"),
    ],
)
def test_a_broken_scenario_is_one_line_naming_the_file(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    with pytest.raises(SettingsError, match=words) as error:
        settings.load_scenario(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_scenario_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no scenario file"):
        settings.load_scenario(tmp_path / "none.yaml")


def test_a_dumped_table_loads_to_itself(tmp_path: Path) -> None:
    table = settings.resolve({"train.lr": 0.1, "strategy.mu": 0.5})
    path = tmp_path / "settings.yaml"
    path.write_text(settings.dump(table))
    assert settings.resolve(settings.load_scenario(path)) == table
