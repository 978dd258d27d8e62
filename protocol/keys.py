"""The key pairs by which sites prove who they are: ECDSA on P-384 in OpenSSH's formats, as Flower's SuperNode takes
them. The private key is made where it is used and never leaves that machine; the public key is one line of text.
"""

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_public_key,
    load_ssh_private_key,
    load_ssh_public_key,
)

from protocol.errors import DeploymentError


@dataclass(frozen=True)
class PublicKey:
    """A public key as PEM, as Flower's wire has it, and as one line of OpenSSH without its comment."""

    pem: bytes
    line: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it: to read to each other over the telephone."""
        digest = hashlib.sha256(base64.b64decode(self.line.split()[1])).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def make_key_pair(private: Path, public: Path, name: str) -> PublicKey:
    """Write a fresh key pair, the private key readable by its owner alone; `name` becomes the public key's comment.

    Raises:
        DeploymentError: one of the files is there already.
    """
    for path in (private, public):
        if path.exists():
            raise DeploymentError(
                f"{path} is there already; a new key needs a new enrolment: move the old one away first"
            )
    key = ec.generate_private_key(ec.SECP384R1())
    private.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(private, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    made = _public(key.public_key())
    public.write_text(f"{made.line} {name}\n")
    return made


def read_private_key(path: Path) -> ec.EllipticCurvePrivateKey:
    """The private key in a file, once nobody else can read it.

    Raises:
        DeploymentError: the file is missing, another user's, open to others, or no such key.
    """
    if not path.is_file():
        raise DeploymentError(f"the private key {path} is missing; make one with: fedurwkv site keygen")
    found = path.stat()
    if found.st_uid != os.geteuid():
        raise DeploymentError(
            f"the private key {path} belongs to user {found.st_uid}, and this is user {os.geteuid()};"
            f" chown {os.geteuid()} {path}"
        )
    if found.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DeploymentError(f"the private key {path} is open to other users; chmod 600 {path}")
    try:
        key = load_ssh_private_key(path.read_bytes(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeploymentError(
            f"{path} is no private key of OpenSSH's format without a passphrase: {error}"
        ) from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DeploymentError(f"{path} is no ECDSA key; make one with: fedurwkv site keygen")
    return key


def read_public_key(path: Path) -> PublicKey:
    """The public key in a file of one OpenSSH line.

    Raises:
        DeploymentError: the file is missing, or holds no ECDSA public key.
    """
    if not path.is_file():
        raise DeploymentError(f"the public key {path} is missing")
    data = path.read_bytes()
    if b"PRIVATE KEY" in data:
        raise DeploymentError(
            f"{path} is a private key, which must never leave the hospital: ask for a new key pair, and for the file"
            " that ends in .pub"
        )
    try:
        key = load_ssh_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise DeploymentError(f"{path} is no public key: {error}") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise DeploymentError(f"{path} is no ECDSA key; the hospital makes one with: fedurwkv site keygen")
    return _public(key)


def public_key_of(private: ec.EllipticCurvePrivateKey) -> PublicKey:
    """The public half of a private key."""
    return _public(private.public_key())


def public_key_from_pem(pem: bytes) -> PublicKey:
    """The public key that PEM describes; ValueError when it describes none."""
    key = load_pem_public_key(pem)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise ValueError("no ECDSA key")
    return _public(key)


def _public(key: ec.EllipticCurvePublicKey) -> PublicKey:
    line = key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return PublicKey(key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), line)
