import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtensionOID

from protocol.errors import DeploymentError, SettingsError
from protocol.keys import make_key_pair
from server.certificates import days_left, make_server_certificate
from server.study import Study, make_study, read_study


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", ["study.example.org", "10.1.2.3"])


def key(folder: Path, name: str) -> Path:
    make_key_pair(folder / name, folder / f"{name}.pub", name)
    return folder / f"{name}.pub"


def test_what_init_makes_is_what_the_others_read(study: Study) -> None:
    assert read_study(study.folder) == study
    assert (study.hosts, study.port, study.local_address) == (
        ("study.example.org", "10.1.2.3"),
        9092,
        "127.0.0.1:9092",
    )
    for secret in (study.folder / "ca.key", study.certificate_key):
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    assert stat.S_IMODE(study.folder.stat().st_mode) == 0o700
    with pytest.raises(DeploymentError, match="is a study already"):
        make_study(study.folder, ["a"])


def test_the_certificate_is_for_the_names_given_and_for_this_machine(study: Study) -> None:
    certificate = x509.load_pem_x509_certificate(study.certificate.read_bytes())
    authority = x509.load_pem_x509_certificate(study.ca.read_bytes())
    certificate.verify_directly_issued_by(authority)
    names = certificate.extensions.get_extension_for_oid(ExtensionOID.SUBJECT_ALTERNATIVE_NAME).value
    assert isinstance(names, x509.SubjectAlternativeName)
    assert names.get_values_for_type(x509.DNSName) == ["study.example.org", "localhost"]
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["10.1.2.3", "127.0.0.1", "::1"]
    assert 725 < days_left(study.certificate) < 730


def test_a_renewed_certificate_is_of_the_same_authority(study: Study) -> None:
    authority = study.ca.read_bytes()
    long_ago = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    pair = (study.ca, study.folder / "ca.key")
    make_server_certificate(study.certificate, study.certificate_key, pair, study.hosts, long_ago, 30)
    assert days_left(study.certificate) < 0
    assert study.renew() > 700
    assert study.ca.read_bytes() == authority
    (study.folder / "ca.key").unlink()
    with pytest.raises(DeploymentError, match="bring it back"):
        study.renew()


@pytest.mark.parametrize("hosts", [[], ["https://a"], ["a:9092"], ["a b"]])
def test_hosts_are_names_alone(tmp_path: Path, hosts: list[str]) -> None:
    with pytest.raises(SettingsError, match=r"like study\.example\.org"):
        make_study(tmp_path / "s", hosts)


def test_a_site_is_admitted_by_its_key_and_revoked_for_ever(study: Study, tmp_path: Path) -> None:
    mercy = study.admit("mercy", key(tmp_path, "a"))
    assert study.admit("mercy", tmp_path / "a.pub") == mercy  # enrolling twice is enrolling once
    assert study.admitted() == {"mercy": mercy}
    assert study.who(mercy) == "mercy"
    with pytest.raises(DeploymentError, match="admitted by another key"):
        study.admit("mercy", key(tmp_path, "b"))
    with pytest.raises(DeploymentError, match="is the key of mercy"):
        study.admit("other", tmp_path / "a.pub")
    with pytest.raises(DeploymentError, match="no site 'mercey' is admitted; did you mean 'mercy'"):
        study.revoke("mercey")
    assert study.revoke("mercy") == mercy
    assert study.admitted() == {}
    assert "mercy, whose key SHA256:" in study.who(mercy)
    with pytest.raises(DeploymentError, match="was revoked; the hospital makes a new one"):
        study.admit("mercy", tmp_path / "a.pub")
    again = study.admit("mercy", tmp_path / "b.pub")
    assert study.who(again) == "mercy"


@pytest.mark.parametrize("name", ["", "a/b", "..", "-a", "a b"])
def test_a_name_is_a_name(study: Study, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="is no name of a site"):
        study.admit(name, tmp_path / "a.pub")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hosts: [a]", "must have exactly these keys"),
        ("hosts: a\nlisten: b\nport: 1\nhealth: ''", "must be a list of names"),
        ("hosts: [a]\nlisten: b\nport: 70000\nhealth: ''", "port = 70000"),
        ("hosts: [a]\nlisten: b\nport: 1\nhealth: x", "health = 'x': write HOST:PORT"),
        ("hosts: [", "is not valid YAML"),
    ],
)
def test_a_wrong_study_yaml_is_named(study: Study, text: str, says: str) -> None:
    (study.folder / "study.yaml").write_text(text)
    with pytest.raises(SettingsError, match=says):
        read_study(study.folder)
