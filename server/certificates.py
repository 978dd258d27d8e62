"""The study's own certificate authority and the server certificate that it signs: X.509, ECDSA on P-384.

Sites trust the authority alone, so a renewed server certificate needs no change at any site.
"""

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.atomic import write_atomic

AUTHORITY_DAYS = 3650
SERVER_DAYS = 730

SLACK = datetime.timedelta(hours=1)
"""How long before now a certificate begins to be valid, for clocks that are late."""

LOOPBACK = ("localhost", "127.0.0.1", "::1")
"""Names of the coordinator's own machine, under which its own processes reach the server."""


def make_authority(certificate: Path, key: Path, study: str) -> None:
    """Write a fresh certificate authority, its key readable by its owner alone."""
    secret = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"FedURWKV study {study}"[:64])])
    start = _now() - SLACK
    made = (
        _builder(name, name, secret.public_key(), start, start + datetime.timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(secret.public_key()), critical=False)
        .sign(secret, hashes.SHA384())
    )
    _write_secret(key, secret)
    write_atomic(certificate, made.public_bytes(Encoding.PEM))


def make_server_certificate(
    certificate: Path,
    key: Path,
    authority: tuple[Path, Path],
    hosts: Sequence[str],
    start: datetime.datetime | None = None,
    days: float = SERVER_DAYS,
) -> None:
    """Write a server certificate for `hosts` (names or addresses) and the loopback names, and its private key.

    Args:
        authority: the files of the authority's certificate and key.
        start: when it begins to be valid; None: now, less `SLACK`.
        days: how long it is valid.
    """
    issuer = x509.load_pem_x509_certificate(authority[0].read_bytes())
    signer = load_pem_private_key(authority[1].read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    secret = ec.generate_private_key(ec.SECP384R1())
    start = start or _now() - SLACK
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    names = [_general_name(host) for host in dict.fromkeys([*hosts, *LOOPBACK])]
    made = (
        _builder(name, issuer.subject, secret.public_key(), start, start + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA384())
    )
    _write_secret(key, secret)
    write_atomic(certificate, made.public_bytes(Encoding.PEM))


def days_left(certificate: Path) -> float:
    """Days until a certificate expires; negative once it has."""
    end = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    return (end - _now()).total_seconds() / 86400


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePublicKey,
    start: datetime.datetime,
    end: datetime.datetime,
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _write_secret(path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    """Write a private key, readable by its owner alone from the first byte on."""
    path.unlink(missing_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
