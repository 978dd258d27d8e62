"""A study's folder at the coordinator: what `fedurwkv coordinator init` makes and the other commands work on.

study.yaml              names, address and ports: the study lead's own words
ca.crt, ca.key          the study's certificate authority; ca.crt goes to every hospital, ca.key to nobody
server.crt, server.key  the certificate that the server shows
sites/NAME.pub          the hospitals that are admitted, by the public key that each made
revoked/NAME-N.pub      those that were and are no longer
runs/NAME/              one folder a run
flower/                 Flower's own: home, database, log
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from protocol.address import read_address
from protocol.atomic import write_atomic
from protocol.errors import DeploymentError, SettingsError
from protocol.keys import PublicKey, public_key_from_pem, read_public_key
from protocol.settings import nearest
from server.certificates import days_left, make_authority, make_server_certificate

TEMPLATE = """\
# A study of hospitals that train one network together. After a change: restart fedurwkv coordinator start.
# Other names for the server need another certificate: fedurwkv coordinator renew {folder}

hosts: [{hosts}]          # names and addresses under which hospitals reach this machine
listen: {listen}          # address to listen on; 0.0.0.0 is every network card
port: {port}              # the one port that hospitals reach; open it in the firewall, TCP in
health: {health}          # where gRPC's health service listens, for monitoring; "" for none
"""

KEY_HEADER = b"flwr-public-key"
"""Header of a call to the Fleet API: the caller's public key, PEM in base64."""

LISTEN, PORT, HEALTH = "0.0.0.0", 9092, "127.0.0.1:9093"

FILE = "study.yaml"

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Study:
    """A study's folder and the words of its study.yaml."""

    folder: Path
    hosts: tuple[str, ...]
    listen: str
    port: int
    health: str

    @property
    def ca(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def certificate(self) -> Path:
        return self.folder / "server.crt"

    @property
    def certificate_key(self) -> Path:
        return self.folder / "server.key"

    @property
    def flower(self) -> Path:
        return self.folder / "flower"

    @property
    def refusals(self) -> Path:
        """The log of who was refused and why, a line each."""
        return self.folder / "refused.log"

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    @property
    def local_address(self) -> str:
        """Where this machine's own processes reach the server."""
        host = "127.0.0.1" if self.listen in ("0.0.0.0", "::") else self.listen
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    def admitted(self) -> dict[str, PublicKey]:
        """The public keys of the admitted hospitals, by name."""
        return {path.stem: read_public_key(path) for path in sorted((self.folder / "sites").glob("*.pub"))}

    def revoked(self) -> dict[str, PublicKey]:
        """The public keys that were revoked, by name and number."""
        return {path.stem: read_public_key(path) for path in sorted((self.folder / "revoked").glob("*.pub"))}

    def name_of(self, key: PublicKey) -> str:
        """The name of the hospital that is admitted by this key; "" when none is."""
        return next((name for name, one in self.admitted().items() if one.line == key.line), "")

    def who(self, key: PublicKey) -> str:
        """Whose key this is, in words."""
        if admitted := self.name_of(key):
            return admitted
        for name, one in self.revoked().items():
            if one.line == key.line:
                return f"{name.rpartition('-')[0]}, whose key {key.fingerprint} was revoked"
        return f"the unknown key {key.fingerprint}"

    def who_signed(self, headers: Mapping[bytes, bytes]) -> str:
        """Whose key signed a call, by its headers, in words."""
        if KEY_HEADER not in headers:
            return "a caller without a key"
        try:
            return self.who(public_key_from_pem(base64.b64decode(headers[KEY_HEADER], validate=True)))
        except ValueError:
            return "a caller with something that is no key"

    def admit(self, name: str, key: Path) -> PublicKey:
        """Admit the hospital `name` by the public key in the file `key`.

        Raises:
            SettingsError: `name` is no name.
            DeploymentError: the name or the key is taken, or `key` holds no public key.
        """
        if NAME.fullmatch(name) is None:
            raise SettingsError(f"{name!r} is no name of a site: use letters, digits, dots, hyphens and underscores")
        new, admitted = read_public_key(key), self.admitted()
        if name in admitted and admitted[name].line != new.line:
            raise DeploymentError(
                f"{name} is admitted by another key; for a new one, first: fedurwkv coordinator revoke"
            )
        for other, one in admitted.items():
            if one.line == new.line and other != name:
                raise DeploymentError(f"{key} is the key of {other}; every site has a key pair of its own")
        if any(one.line == new.line for one in self.revoked().values()):
            raise DeploymentError(f"{key} was revoked; the hospital makes a new one with: fedurwkv site keygen")
        (self.folder / "sites").mkdir(exist_ok=True)
        write_atomic(self.folder / "sites" / f"{name}.pub", f"{new.line} {name}\n")  # others read it at any moment
        return new

    def revoke(self, name: str) -> PublicKey:
        """Admit the hospital `name` no longer; its key can never come back.

        Raises:
            DeploymentError: no such hospital is admitted.
        """
        admitted = self.admitted()
        if name not in admitted:
            known = nearest(name, admitted, f"; admitted: {', '.join(admitted) or 'none'}")
            raise DeploymentError(f"no site {name!r} is admitted{known}")
        (self.folder / "revoked").mkdir(exist_ok=True)
        number = 1 + len(list((self.folder / "revoked").glob(f"{name}-*.pub")))
        (self.folder / "sites" / f"{name}.pub").rename(self.folder / "revoked" / f"{name}-{number}.pub")
        return admitted[name]

    def renew(self) -> float:
        """Make a new server certificate for `hosts`; the days that it is valid."""
        authority = (self.ca, self.folder / "ca.key")
        if not authority[1].is_file():
            raise DeploymentError(f"{authority[1]} is missing: bring it back from where it is kept, then renew")
        make_server_certificate(self.certificate, self.certificate_key, authority, self.hosts)
        return days_left(self.certificate)


def make_study(folder: Path, hosts: list[str], listen: str = LISTEN, port: int = PORT, health: str = HEALTH) -> Study:
    """Make `folder` a study whose server is reached under `hosts`.

    Raises:
        DeploymentError: it is one already.
        SettingsError: there is no host, or one with a port or a scheme.
    """
    if (folder / FILE).exists():
        raise DeploymentError(f"{folder} is a study already; see {folder / FILE}")
    if not hosts or any("/" in host or " " in host or host.count(":") == 1 for host in hosts):
        raise SettingsError(
            f"--name {' '.join(hosts)}: give the server's name or address alone, like study.example.org"
        )
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    make_authority(folder / "ca.crt", folder / "ca.key", folder.resolve().name)
    words = TEMPLATE.format(folder=folder, hosts=", ".join(hosts), listen=listen, port=port, health=health or '""')
    (folder / FILE).write_text(words)
    study = read_study(folder)
    study.renew()
    study.flower.mkdir()
    return study


def read_study(folder: Path) -> Study:
    """The study in `folder`.

    Raises:
        DeploymentError: there is none.
        SettingsError: study.yaml holds an unknown key, misses one, or has an impossible value.
    """
    folder = folder.resolve()
    path = folder / FILE
    if not path.is_file():
        raise DeploymentError(f"{path} is missing; make a study with: fedurwkv coordinator init {folder} --name HOST")
    try:
        words: Any = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    known = [field.name for field in fields(Study) if field.name != "folder"]
    if not isinstance(words, dict) or sorted(words) != sorted(known):
        raise SettingsError(f"{path} must have exactly these keys: {', '.join(known)}")
    hosts, port = words["hosts"], words["port"]
    if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) for host in hosts):
        raise SettingsError(f"{path}: hosts = {hosts!r} must be a list of names, like [study.example.org]")
    if not isinstance(port, int) or not 1 <= port <= 65535:
        raise SettingsError(f"{path}: port = {port!r} must be between 1 and 65535")
    if words["health"]:
        try:
            read_address(str(words["health"]))
        except ValueError as error:
            raise SettingsError(f"{path}: health = {words['health']!r}: {error}") from error
    return Study(folder, tuple(hosts), str(words["listen"]), port, str(words["health"]))
