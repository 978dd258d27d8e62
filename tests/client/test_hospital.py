from pathlib import Path

import pytest
import yaml

from client.hospital import TELLING, read_hospital, write_template
from client.privacy.policy import read_policy
from protocol.errors import DeploymentError, SettingsError
from tests.client.hospitals import hospital_at


def test_the_template_is_a_hospital_named_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mercy"
    write_template(folder)
    hospital = read_hospital(folder)
    assert (hospital.name, hospital.coordinator, hospital.device, hospital.threads) == ("mercy", "", "auto", 0)
    assert (hospital.key, hospital.public_key) == (folder / "site.key", folder / "site.pub")
    assert hospital.data == folder
    with pytest.raises(DeploymentError, match="is there already"):
        write_template(folder)


@pytest.mark.parametrize("name", ["St. Mary: west", "yes", "wing #1", "1e3", "Zürich " + "x" * 100])
def test_a_folders_name_is_the_hospitals_whatever_yaml_thinks_of_it(name: str, tmp_path: Path) -> None:
    assert read_hospital(write_template(tmp_path / name).parent).name == name


def test_the_template_lets_out_what_the_coordinator_cannot_do_without(tmp_path: Path) -> None:
    write_template(tmp_path / "mercy")
    policy = read_policy(tmp_path / "mercy")
    needed = {"train.images": 7.0, "val.images": 3.0, "val.dice": 0.123456, "test.nsd": 0.123456}
    out = policy.let_out(needed | {"patients.oldest": 99.0} | dict.fromkeys(TELLING, 0.5))
    assert out.keys() == needed.keys()
    assert out["val.dice"] == 0.123


def test_the_template_keeps_what_depends_on_secret_draws(tmp_path: Path) -> None:
    policy = read_policy(write_template(tmp_path / "mercy").parent)
    assert policy.privacy.unit == "patient"
    assert [name for name in policy.allow.uncovered if not name.startswith("test.")] == ["val.dice"]


def test_nothing_leaves_where_none_may(tmp_path: Path) -> None:
    hospital_at(tmp_path, tmp_path, scalars="none")
    assert read_policy(tmp_path).let_out({"val.dice": 1.0}) == {}


def test_a_hospital_needs_its_file(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="fedurwkv site init"):
        read_hospital(tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"coordinater": "a:1"}, "unknown key 'connection.coordinater'; did you mean 'connection.coordinator'"),
        ({"coordinator": "a"}, "connection.coordinator = 'a': write HOST:PORT"),
        ({"threads": -1}, "connection.threads = -1 must be 0"),
        ({"threads": "many"}, "connection.threads = 'many' must be a whole number"),
        ({"name": ""}, "connection.name = '' must be the name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, words: dict[str, object], says: str) -> None:
    content = yaml.safe_load(write_template(tmp_path).read_text())
    content["connection"] |= words
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(SettingsError, match=says):
        read_hospital(tmp_path)


def test_a_missing_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("connection: {name: mercy}")
    with pytest.raises(SettingsError, match=r"the setting connection\.coordinator is missing"):
        read_hospital(tmp_path)
