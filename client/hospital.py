"""site.yaml: the hospital's own word, written by `fedurwkv site init`, read at the hospital and never sent anywhere.

This is its half on the machine and the way to the coordinator, and the list of the numbers that may leave. Paths in
it are relative to its folder.
"""

from dataclasses import dataclass, fields
from pathlib import Path

import yaml

from protocol.address import read_address
from protocol.errors import DeploymentError, SettingsError
from protocol.settings import Table, load_scenario, nearest, require, section

FILE = "site.yaml"

TEMPLATE = """\
# What this hospital says about itself and what it allows. The file stays here: nothing in it is sent to anybody.
# Paths are relative to this folder. After a change: fedurwkv site check {folder}

data: .                         # folder with images/, masks/ and perhaps site.csv
device: auto                    # where to compute: auto, cpu, cuda or cuda:N

connection:
  name: {name}                  # how the study calls this hospital; scores are reported under it
  coordinator: ""               # HOST:PORT, as the study's lead gives it; this side calls, nobody calls in
  ca: ca.crt                    # the study's CA certificate, as the study's lead gives it
  key: site.key                 # this hospital's private key, made by: fedurwkv site keygen {folder}
  state: state                  # folder for logs and for what outlives a restart
  threads: 0                    # CPU threads; 0: all cores

privacy:
  unit: patient                 # whom a guarantee must protect: patient, example; none: training without privacy
  epsilon_study: 4              # the most that one study may cost a patient
  epsilon_all: 10               # the most that all studies together may
  delta: 1e-5                   # at which they are counted
  batch: 8                      # fewest patients a step (without privacy: images)
  patients: 20                  # fewest training patients; with fewer, nothing is trained
  images: 20                    # fewest training images

allow:
  strategies: any               # the aggregation strategies that may be used, like: fedavg, fedprox
  # the numbers that may leave beside the update, by name; "any" for all. The others are dropped, and the log says so.
  # These are the ones that coordinators count on to choose and judge a model. No noise covers val.* and test.*.
  # These may leave as well where privacy.unit is none; with privacy they say more than any epsilon covers:
  # {others}
  scalars: {scalars}
  decimals: 3                   # to which they are rounded
  # noised: val.dice            # those that leave with noise alone, each paid for in the ledger: docs/privacy.md
  # noise: 20                   # that noise, in units of what one patient can move a score by
  code: any                     # or the one version of the program to insist on
  settings: any                 # or the hash of the study's settings to insist on
"""

COUNTED_ON = (
    *("train.images", "train.steps", "epsilon"),
    *("val.images", "val.dice"),
    *(f"test.{name}" for name in ("images", "dice", "iou", "hd95", "nsd")),
)
"""The scalars without which a coordinator has no model to choose, or no word on how good it is."""

TELLING = (
    *("train.loss", *(f"seconds.{name}" for name in ("read", "load", "evaluate", "train", "pack"))),
    *("val.loss", "val.iou"),
)
"""Scalars that a coordinator shows where it gets them. Those of `train` and `seconds` depend on the secret draws of
private steps; those of `val` are two more exact numbers a round on the same patients."""

OTHERS = ("privacy.", "allow.")
"""The sections of site.yaml that are the policy's."""

OPTIONAL: Table = {"data": ".", "device": "auto"}
OPTIONAL |= {"connection.ca": "ca.crt", "connection.key": "site.key", "connection.state": "state"}
OPTIONAL |= {"connection.threads": 0}


@dataclass(frozen=True)
class Connection:
    """The `connection.*` keys of site.yaml, as they stand there."""

    name: str
    coordinator: str
    ca: str
    key: str
    state: str
    threads: int

    def __post_init__(self) -> None:
        require(bool(self.name.strip()), "name", self.name, "the name that the study calls this hospital by")
        require(self.threads >= 0, "threads", self.threads, "0 (all cores) or more")
        if self.coordinator:
            try:
                read_address(self.coordinator)
            except ValueError as error:
                raise ValueError(f"coordinator = {self.coordinator!r}: {error}") from error


@dataclass(frozen=True)
class Hospital:
    """One hospital; every path is absolute.

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
    """

    folder: Path
    name: str
    coordinator: str
    ca: Path
    key: Path
    data: Path
    state: Path
    device: str
    threads: int

    @property
    def public_key(self) -> Path:
        return self.key.with_suffix(".pub")

    @property
    def socket(self) -> Path:
        """The trainer's socket, in a folder that only the hospital's user can open."""
        return self.state / "trainer" / "socket"


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
    given = load_scenario(path)
    known = ["data", "device", *(f"connection.{field.name}" for field in fields(Connection))]
    for key in given:
        if key not in known and not key.startswith(OTHERS):
            hint = nearest(key, known, "; known are: " + ", ".join(known))
            raise SettingsError(f"{path}: unknown key {key!r}{hint}")
    table = OPTIONAL | given
    try:
        words = section(table, "connection", Connection)
    except SettingsError as error:
        raise SettingsError(f"{path}: {error}") from error
    places = {
        key: str(table[key] if key == "data" else table[f"connection.{key}"])
        for key in ("data", "ca", "key", "state")
    }
    return Hospital(
        folder=folder,
        name=words.name,
        coordinator=words.coordinator,
        **{key: (folder / Path(place).expanduser()).absolute() for key, place in places.items()},
        device=str(table["device"]),
        threads=words.threads,
    )


def write_template(folder: Path) -> Path:
    """Make `folder` a hospital: a commented site.yaml, named after the folder.

    Raises:
        DeploymentError: it has one already.
    """
    path = folder / FILE
    if path.exists():
        raise DeploymentError(f"{path} is there already; edit it, or remove it first")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [", ".join(COUNTED_ON[i : i + 5]) for i in range(0, len(COUNTED_ON), 5)]
    words = {"scalars": ",\n    ".join(rows), "others": ", ".join(TELLING)}
    line = yaml.safe_dump({"name": folder.resolve().name}, width=1000)  # quoted, where YAML would misread it
    name = line.removeprefix("name: ").strip()
    path.write_text(TEMPLATE.format(folder=folder, name=name, **words))
    return path
