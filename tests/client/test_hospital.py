from pathlib import Path

import pytest
import yaml

from client.hospital import read_hospital, write_template
from protocol.errors import DeploymentError, SettingsError


def test_the_template_is_a_hospital_named_after_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "mercy"
    write_template(folder)
    hospital = read_hospital(folder)
    assert (hospital.name, hospital.coordinator, hospital.device, hospital.threads) == ("mercy", "", "auto", 0)
    assert (hospital.key, hospital.public_key) == (folder / "site.key", folder / "site.pub")
    assert hospital.data == folder
    with pytest.raises(DeploymentError, match="is there already"):
        write_template(folder)


def test_the_template_lets_out_what_the_coordinator_cannot_do_without(tmp_path: Path) -> None:
    write_template(tmp_path / "mercy")
    hospital = read_hospital(tmp_path / "mercy")
    assert all(hospital.lets_out(name) for name in ("train.images", "train.loss", "val.dice", "test.hd95"))
    assert not hospital.lets_out("patients.names")


def test_a_hospital_needs_its_file(tmp_path: Path) -> None:
    with pytest.raises(DeploymentError, match="fedurwkv site init"):
        read_hospital(tmp_path)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"coordinater": "a:1"}, "unknown key 'coordinater'; did you mean 'coordinator'"),
        ({"coordinator": "a"}, "coordinator = 'a': write HOST:PORT"),
        ({"threads": -1}, "threads = -1 must be 0"),
        ({"threads": True}, "threads = True must be 0"),
        ({"scalars": "train.*"}, "scalars = 'train.\\*' must be a list"),
        ({"name": ""}, "name is empty"),
        ({"device": 3}, "device = 3 must be a word"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, words: dict[str, object], says: str) -> None:
    content = yaml.safe_load(write_template(tmp_path).read_text())
    (tmp_path / "site.yaml").write_text(yaml.safe_dump(content | words))
    with pytest.raises(SettingsError, match=says):
        read_hospital(tmp_path)


def test_a_missing_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("name: mercy\n")
    with pytest.raises(SettingsError, match="the key coordinator is missing"):
        read_hospital(tmp_path)
