import stat
import subprocess
from pathlib import Path

import pytest

from protocol.errors import DeploymentError
from protocol.keys import make_key_pair, public_key_from_pem, public_key_of, read_private_key, read_public_key


def test_the_two_files_are_one_pair_in_openssh_formats(tmp_path: Path) -> None:
    made = make_key_pair(tmp_path / "k", tmp_path / "k.pub", "mercy")
    assert public_key_of(read_private_key(tmp_path / "k")) == read_public_key(tmp_path / "k.pub") == made
    assert public_key_from_pem(made.pem) == made
    kind, _, name = (tmp_path / "k.pub").read_text().split()
    assert (kind, name) == ("ecdsa-sha2-nistp384", "mercy")
    assert (tmp_path / "k").read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")


def test_only_its_owner_reads_a_private_key(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k", tmp_path / "k.pub", "mercy")
    assert stat.S_IMODE((tmp_path / "k").stat().st_mode) == 0o600
    (tmp_path / "k").chmod(0o640)
    with pytest.raises(DeploymentError, match=r"open to other users; chmod 600"):
        read_private_key(tmp_path / "k")


def test_a_key_pair_is_never_overwritten(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k", tmp_path / "k.pub", "mercy")
    before = (tmp_path / "k").read_bytes()
    with pytest.raises(DeploymentError, match="is there already"):
        make_key_pair(tmp_path / "k", tmp_path / "k.pub", "mercy")
    assert (tmp_path / "k").read_bytes() == before


def test_the_private_key_in_place_of_the_public_one_is_an_alarm(tmp_path: Path) -> None:
    make_key_pair(tmp_path / "k", tmp_path / "k.pub", "mercy")
    with pytest.raises(DeploymentError, match="never leave the hospital: ask for a new key pair"):
        read_public_key(tmp_path / "k")


@pytest.mark.parametrize(("text", "says"), [("", "is no public key"), ("ssh-ed25519 AAAA", "is no public key")])
def test_what_is_no_key_is_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "k.pub").write_text(text)
    with pytest.raises(DeploymentError, match=says):
        read_public_key(tmp_path / "k.pub")
    with pytest.raises(DeploymentError, match="is missing"):
        read_public_key(tmp_path / "none.pub")


def test_the_fingerprint_is_the_one_of_ssh_keygen(tmp_path: Path) -> None:
    made = make_key_pair(tmp_path / "k", tmp_path / "k.pub", "mercy")
    try:
        words = ["ssh-keygen", "-l", "-f", str(tmp_path / "k.pub")]
        said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no ssh-keygen here")
    assert said.split()[1] == made.fingerprint
