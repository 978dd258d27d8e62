"""site.yaml: the hospital's own word, written by `fedurwkv site init`, read at the hospital and never sent anywhere.

Paths in it are relative to its folder.
"""

from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from protocol.address import read_address
from protocol.errors import DeploymentError, SettingsError
from protocol.settings import nearest

FILE = "site.yaml"

TEMPLATE = """\
# What this hospital says about itself and allows. The file stays here: nothing in it is sent to the coordinator.
# Paths are relative to this folder. After a change: fedurwkv site check {folder}

name: {name}                  # how the study calls this hospital; scores are reported under it

# --- the coordinator ---
coordinator: ""               # HOST:PORT, as the study's lead gives it; connections go out only, none comes in
ca: ca.crt                    # the study's CA certificate, as the study's lead gives it
key: site.key                 # this hospital's private key, made by: fedurwkv site keygen {folder}

# --- data and machine ---
data: .                       # folder with images/, masks/ and perhaps site.csv
state: state                  # folder for logs and for what outlives a restart
device: auto                  # auto, cpu, cuda or cuda:N
threads: 0                    # CPU threads; 0: all cores

# --- what may leave ---
# The numbers that replies may hold, by name; * stands for any ending. Others are dropped, and the log says so.
# Coordinators cannot do without train.images, train.loss and, of val and test, images, dice, iou, loss, hd95 and nsd.
scalars: [train.*, val.*, test.*, seconds.*]
"""

REQUIRED = ("name", "coordinator", "data", "scalars")


@dataclass(frozen=True)
class Hospital:
    """One hospital's site.yaml; every path is absolute.

    Attributes:
        folder: where site.yaml lies.
        name: the site's name in the study.
        coordinator: HOST:PORT of the coordinator; empty until it is known.
        ca: the study's CA certificate.
        key: the hospital's private key; the public key lies beside it, with the suffix .pub.
        data: the folder of images and masks.
        state: the folder for logs and all that outlives a restart.
        device: auto, cpu, cuda or cuda:N.
        threads: CPU threads; 0: all cores.
        scalars: patterns of the names that replies may hold.
    """

    folder: Path
    name: str
    coordinator: str
    data: Path
    scalars: tuple[str, ...]
    ca: Path
    key: Path
    state: Path
    device: str = "auto"
    threads: int = 0

    @property
    def public_key(self) -> Path:
        return self.key.with_suffix(".pub")

    @property
    def socket(self) -> Path:
        """The trainer's socket, in a folder that only the hospital's user can open."""
        return self.state / "trainer" / "socket"

    def lets_out(self, name: str) -> bool:
        """Whether replies may hold the scalar `name`."""
        return any(fnmatchcase(name, pattern) for pattern in self.scalars)


def read_hospital(folder: Path) -> Hospital:
    """The hospital that FOLDER/site.yaml describes.

    Raises:
        DeploymentError: there is no such file.
        SettingsError: a key is unknown, missing, or its value has another type or is impossible.
    """
    folder = folder.resolve()
    path = folder / FILE
    if not path.is_file():
        raise DeploymentError(f"{path} is missing; make one with: fedurwkv site init {folder}")
    try:
        words: Any = yaml.safe_load(path.read_text()) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(words, dict):
        raise SettingsError(f"{path}: write one KEY: VALUE a line")
    known = [field.name for field in fields(Hospital) if field.name != "folder"]
    for key in words:
        if key not in known:
            raise SettingsError(
                f"{path}: unknown key {key!r}{nearest(str(key), known, '; it has: ' + ', '.join(known))}"
            )
    words = {"ca": "ca.crt", "key": "site.key", "state": "state"} | words
    for key in REQUIRED:
        if key not in words:
            raise SettingsError(f"{path}: the key {key} is missing; see the file that fedurwkv site init writes")
    return Hospital(folder, **{key: _read(path, key, value) for key, value in words.items()})


def _read(path: Path, key: str, value: Any) -> Any:
    """The value of one key, checked."""
    if key == "scalars":
        if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
            raise SettingsError(f"{path}: scalars = {value!r} must be a list of names, like [train.*, val.dice]")
        return tuple(value)
    if key == "threads":
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise SettingsError(f"{path}: threads = {value!r} must be 0 (all cores) or more")
        return value
    if not isinstance(value, str):
        raise SettingsError(f"{path}: {key} = {value!r} must be a word")
    if key in ("ca", "key", "data", "state"):
        return (path.parent / Path(value).expanduser()).absolute()
    if key == "name" and not value.strip():
        raise SettingsError(f"{path}: name is empty; give the name that the study calls this hospital by")
    if key == "coordinator" and value:
        try:
            read_address(value)
        except ValueError as error:
            raise SettingsError(f"{path}: coordinator = {value!r}: {error}") from error
    return value


def write_template(folder: Path) -> Path:
    """Make `folder` a hospital: a commented site.yaml, named after the folder.

    Raises:
        DeploymentError: it has one already.
    """
    path = folder / FILE
    if path.exists():
        raise DeploymentError(f"{path} is there already; edit it, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(TEMPLATE.format(folder=folder, name=folder.resolve().name))
    return path
