import json
import os
from pathlib import Path

import pytest

from client.connection import reach
from client.hospital import Hospital
from protocol.errors import DeploymentError
from protocol.keys import make_key_pair
from tests.client.hospitals import hospital_at
from tests.client.tls_servers import https, make_certificates
from tests.deployment.federation import free_port


def joining(folder: Path, coordinator: str, ca: Path) -> Hospital:
    """A hospital with a key of its own that wants to reach `coordinator`."""
    hospital = hospital_at(folder / "h", folder, coordinator=coordinator, ca=str(ca))
    make_key_pair(hospital.key, hospital.public_key, "mercy")
    return hospital


def test_a_name_that_does_not_resolve(tmp_path: Path) -> None:
    ca = make_certificates(tmp_path / "c") / "ca.crt"
    with pytest.raises(DeploymentError, match=r"nowhere\.invalid does not resolve .*check coordinator in site\.yaml"):
        reach(joining(tmp_path, "nowhere.invalid:9092", ca))


def test_a_closed_port(tmp_path: Path) -> None:
    ca = make_certificates(tmp_path / "c") / "ca.crt"
    with pytest.raises(DeploymentError, match=r"has nothing on port \d+ .*is the coordinator started"):
        reach(joining(tmp_path, f"127.0.0.1:{free_port()}", ca))


def test_plain_http(tmp_path: Path) -> None:
    ca = make_certificates(tmp_path / "c") / "ca.crt"
    with https(None) as port, pytest.raises(DeploymentError, match=r"does not speak TLS .*plain HTTP"):
        reach(joining(tmp_path, f"127.0.0.1:{port}", ca))


def test_another_studys_authority(tmp_path: Path) -> None:
    ca = make_certificates(tmp_path / "other") / "ca.crt"
    with (
        https(make_certificates(tmp_path / "c")) as port,
        pytest.raises(
            DeploymentError, match=r"is not of the study's authority in .*ask the study's lead for ca\.crt"
        ),
    ):
        reach(joining(tmp_path, f"127.0.0.1:{port}", ca))


def test_a_certificate_for_other_names(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "c")
    with (
        https(certificates, host="127.0.0.2") as port,
        pytest.raises(DeploymentError, match=r"is for other names .*use the name that the study's lead gave"),
    ):
        reach(joining(tmp_path, f"127.0.0.2:{port}", certificates / "ca.crt"))


def test_an_expired_certificate(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "c", expired=True)
    with https(certificates) as port, pytest.raises(DeploymentError, match=r"has expired; .*coordinator renew"):
        reach(joining(tmp_path, f"127.0.0.1:{port}", certificates / "ca.crt"))


@pytest.mark.parametrize(("late", "says"), [(600, "behind"), (-600, "ahead of")])
def test_a_clock_off_by_ten_minutes(tmp_path: Path, late: float, says: str) -> None:
    certificates = make_certificates(tmp_path / "c")
    with https(certificates, late) as port, pytest.raises(DeploymentError, match=f"clock is (599|600|601) s {says}"):
        reach(joining(tmp_path, f"127.0.0.1:{port}", certificates / "ca.crt"))


def test_a_server_that_is_no_coordinator(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "c")
    with https(certificates) as port, pytest.raises(DeploymentError, match=r"the coordinator refuses .*site\.key"):
        reach(joining(tmp_path, f"127.0.0.1:{port}", certificates / "ca.crt"))


@pytest.mark.parametrize("name", ["h", "mercy"])
def test_the_name_must_be_the_enrolled_one(tmp_path: Path, name: str) -> None:
    certificates = make_certificates(tmp_path / "c")
    known = json.dumps({"code": 2003, "detail": "Invalid heartbeat interval.", "site": "mercy"}).encode()
    with https(certificates, answer=known) as port:
        coordinator = f"127.0.0.1:{port}"
        hospital = hospital_at(
            tmp_path / "h", tmp_path, coordinator=coordinator, ca=str(certificates / "ca.crt"), name=name
        )
        make_key_pair(hospital.key, hospital.public_key, name)
        if name == "mercy":
            assert abs(reach(hospital)) < 30
            return
        with pytest.raises(
            DeploymentError, match=r"enrolled this hospital's key as 'mercy', and .* says name: h; write"
        ):
            reach(hospital)


def test_what_is_missing_here_is_said_before_anybody_is_asked(tmp_path: Path) -> None:
    hospital = hospital_at(tmp_path / "h", tmp_path)
    with pytest.raises(DeploymentError, match="names no coordinator yet"):
        reach(hospital)
    hospital = hospital_at(tmp_path / "h", tmp_path, coordinator="a.example:1")
    with pytest.raises(DeploymentError, match=r"the CA certificate .* is missing"):
        reach(hospital)
    hospital.ca.touch()
    with pytest.raises(DeploymentError, match="site keygen"):
        reach(hospital)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_key_of_another_user(tmp_path: Path) -> None:
    certificates = make_certificates(tmp_path / "c")
    hospital = joining(tmp_path, "127.0.0.1:1", certificates / "ca.crt")
    os.chown(hospital.key, 12345, 12345)
    with pytest.raises(DeploymentError, match=r"belongs to user 12345, and this is user 0; chown 0"):
        reach(hospital)
