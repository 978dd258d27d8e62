"""The images' recipes, as far as they can be checked without building them."""

import subprocess

import pytest
import yaml

from client.hospital import TEMPLATE
from client.service import STUDIES
from protocol.settings import ROOT

DOCKER = ROOT / "docker"
SERVICES = yaml.safe_load((DOCKER / "compose.yml").read_text())["services"]


@pytest.mark.parametrize("number", [1, 2, 3])
def test_who_has_the_data_has_no_network_and_who_has_the_network_has_no_data(number: int) -> None:
    trainer, connection = SERVICES[f"trainer{number}"], SERVICES[f"connection{number}"]
    assert trainer["network_mode"] == "none"
    assert f"data{number}:/data:ro" in trainer["volumes"]
    assert connection["networks"] == ["study"]
    own = [f"state{number}:/site/state", f"socket{number}:/site/state/trainer"]
    assert connection["volumes"] == [f"site{number}:/site:ro", *own]
    assert "/site/privacy" in connection["tmpfs"]


@pytest.mark.parametrize("name", sorted(SERVICES.keys() - {"prepare"}))
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "user" not in service  # the image's own, which is not root


@pytest.mark.parametrize("name", ["coordinator", "hospital"])
def test_an_image_is_pinned_runs_as_a_user_and_says_whether_it_is_well(name: str) -> None:
    lines = (DOCKER / f"{name}.Dockerfile").read_text().splitlines()
    (base,) = [line for line in lines if line.startswith("FROM ")]
    assert base.rpartition(":")[2].startswith("3.11.")
    assert "USER 10001" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)


def test_what_the_rehearsal_changes_in_site_yaml_is_there_once() -> None:
    for start in ("  name: ", "  coordinator: ", "data: ", "  unit: "):
        assert sum(line.startswith(start) for line in TEMPLATE.splitlines()) == 1


def test_every_volume_is_declared_and_prepared() -> None:
    compose = yaml.safe_load((DOCKER / "compose.yml").read_text())
    mounted = {entry.partition(":")[0] for service in SERVICES.values() for entry in service.get("volumes", [])}
    assert mounted == set(compose["volumes"])
    assert {entry.partition(":")[0] for entry in SERVICES["prepare"]["volumes"]} == mounted


def test_the_connections_unit_reads_the_site_and_writes_its_state_alone() -> None:
    lines = (DOCKER / "site-connection.service").read_text().splitlines()
    assert "ReadOnlyPaths=/var/lib/fedurwkv/site" in lines
    assert "ReadWritePaths=/var/lib/fedurwkv/site/state" in lines
    (hidden,) = [line for line in lines if line.startswith("InaccessiblePaths=")]
    assert hidden.partition("=")[2].split() == [
        "/srv/fedurwkv-data",
        "-/var/lib/fedurwkv/site/privacy",
        f"/var/lib/fedurwkv/site/state/{STUDIES}",
    ]


def test_root_makes_nothing_where_the_site_s_user_could_have_put_a_link() -> None:
    lines = (DOCKER / "site-connection.service").read_text().splitlines()
    (prepared,) = [line for line in lines if line.startswith("ExecStartPre=")]
    assert prepared.startswith("ExecStartPre=+/usr/sbin/runuser -u fedurwkv -- ")


def test_the_rehearsals_script_can_be_read() -> None:
    subprocess.run(["sh", "-n", DOCKER / "prepare.sh"], check=True)
