"""The hospital's own word on what its data may be used for: `site.yaml` in the site's folder, never sent anywhere.

    data: .                     # folder of images/ and masks/, as seen from this file
    device: auto                # where to compute: auto, cpu, cuda, cuda:N
    privacy:
      unit: patient             # whom the guarantee must protect: patient, example; none: no privacy is needed
      epsilon_study: 4          # the most that one study may cost a patient
      epsilon_all: 10           # the most that all studies together may
      delta: 1e-5               # at which they are counted
      batch: 16                 # fewest patients a step (without privacy: images)
      patients: 50              # fewest training patients
      images: 50                # fewest training images
      ledger: privacy           # folder of the ledger, as seen from this file
    allow:
      strategies: fedavg, fedprox          # or any
      scalars: train.images, val.dice, val.loss   # what may leave beside the update; or any, or none
      decimals: 3                          # to which those are rounded
      noised: val.dice, val.loss           # those of them that leave with noise alone, and are paid for; or none
      noise: 20                            # that noise, in units of what one patient can move a score by
      loss_bound: 2                        # a patient's loss counts up to this; where a loss is noised
      code: any                            # or the version to insist on
      settings: any                        # or the hash of the settings to insist on

`data`, `device`, `privacy.ledger` and, where nothing is noised, `allow.noised`, `allow.noise` and `allow.loss_bound`
may be left out; nothing else may, and nothing else may be there.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from client.privacy.accounting import check_delta
from client.privacy.allowed import ANY, NONE, Allowed, words_of
from client.privacy.fingerprint import code_version, settings_hash
from client.privacy.ledger import Limit, Limits
from client.privacy.settings import PrivacySettings
from protocol.errors import PolicyError, SettingsError
from protocol.settings import Table, flatten, load_scenario, nearest, require, section

FILE = "site.yaml"


@dataclass(frozen=True)
class Place:
    """Where the data lie and where to compute."""

    data: str
    device: str


@dataclass(frozen=True)
class Demands:
    """The `privacy.*` keys of site.yaml."""

    unit: Literal["patient", "example", "none"]
    epsilon_study: float
    epsilon_all: float
    delta: float
    batch: int
    patients: int
    images: int
    ledger: str

    def __post_init__(self) -> None:
        require(self.epsilon_study > 0, "epsilon_study", self.epsilon_study, "above 0")
        require(
            self.epsilon_all >= self.epsilon_study, "epsilon_all", self.epsilon_all, "at least privacy.epsilon_study"
        )
        require(0 < self.delta < 1, "delta", self.delta, "between 0 and 1")


@dataclass(frozen=True)
class Policy:
    """A whole site.yaml, and the folder that it lies in."""

    folder: Path
    place: Place
    privacy: Demands
    allow: Allowed

    @property
    def ledger(self) -> Path:
        """The ledger's folder."""
        return self.folder / self.privacy.ledger

    def check(self, table: Table, patients: int, images: int) -> None:
        """Whether a study with these settings may train on this site's patients.

        Args:
            table: the study's complete table.
            patients: whose images are in the train split; `images` how many there are.

        Raises:
            PolicyError: it may not; says why and what would help.
        """
        strategy = str(table["federation.strategy"])
        if self.allow.strategies != ANY and strategy not in words_of(self.allow.strategies):
            raise self._refused(f"federation.strategy = {strategy!r}", f"allows {self.allow.strategies} alone")
        if self.allow.code not in (ANY, code_version()):
            raise self._refused(f"this program is {code_version()}", f"insists on {self.allow.code}")
        if self.allow.settings not in (ANY, settings_hash(table)):
            raise self._refused(
                f"the settings have the hash {settings_hash(table)}", f"insists on {self.allow.settings}"
            )
        if patients < self.privacy.patients:
            raise self._refused(f"{patients} training patients", f"wants {self.privacy.patients} at least")
        if images < self.privacy.images:
            raise self._refused(f"{images} training images", f"wants {self.privacy.images} at least")
        if float(table["privacy.epsilon"]) > 0:
            self._check_private(table, patients)
        elif self.privacy.unit != NONE:
            raise self._refused(
                "privacy.epsilon = 0, which is training without differential privacy,",
                f"wants {self.privacy.unit} privacy of epsilon {self.privacy.epsilon_study:g} at most",
            )
        elif min(int(table["train.batch"]), images) < self.privacy.batch:
            raise self._refused(f"train.batch = {table['train.batch']}", f"wants {self.privacy.batch} at least")

    def _check_private(self, table: Table, patients: int) -> None:
        unit, batch = str(table["privacy.unit"]), min(int(table["privacy.batch"]), patients)
        if self.privacy.unit == "patient" and unit != "patient":
            raise self._refused(f"privacy.unit = {unit!r}", "wants patient: one may have many images")
        if float(table["privacy.epsilon"]) > self.privacy.epsilon_study:
            raise self._refused(
                f"privacy.epsilon = {table['privacy.epsilon']}", f"allows {self.privacy.epsilon_study:g} a study"
            )
        if float(table["privacy.delta"]) > self.privacy.delta:
            raise self._refused(f"privacy.delta = {table['privacy.delta']}", f"allows {self.privacy.delta:g}")
        try:
            check_delta(float(table["privacy.delta"]), patients)
        except SettingsError as error:
            raise PolicyError(str(error)) from error
        if self.privacy.epsilon_all < math.inf and self.privacy.delta * patients >= 1:
            raise self._refused(
                f"privacy.epsilon_all = {self.privacy.epsilon_all:g} at privacy.delta = {self.privacy.delta:g}",
                f"counts {patients} training patients: at 1 / {patients} or more, giving one away is allowed",
            )
        if batch < self.privacy.batch:
            raise self._refused(
                f"privacy.batch = {table['privacy.batch']} of {patients} patients",
                f"wants {self.privacy.batch} at least",
            )

    def check_reports(self, names: Iterable[str]) -> None:
        """Whether the scalars without which the server cannot use an update may leave.

        Raises:
            PolicyError: one may not.
        """
        for name in names:
            if self.allow.scalars != ANY and name not in words_of(self.allow.scalars):
                raise self._refused(f"{name}, which the server needs,", "does not name it among allow.scalars")

    def limits(self, table: Table) -> Limits:
        """What the ledger holds a study with these settings to: its own budget, and the hospital's."""
        settings = section(table, "privacy", PrivacySettings)
        own = Limit(settings.epsilon, settings.delta, "privacy.epsilon", settings.accountant)
        theirs = replace(own, epsilon=self.privacy.epsilon_study, word=f"privacy.epsilon_study of {FILE}")
        every = Limit(self.privacy.epsilon_all, self.privacy.delta, f"privacy.epsilon_all of {FILE}")
        return Limits((own, theirs), every)

    def let_out(self, scalars: Mapping[str, float]) -> dict[str, float]:
        """See `Allowed.let_out`."""
        return self.allow.let_out(scalars, self.folder / FILE)

    def _refused(self, what: str, why: str) -> PolicyError:
        return PolicyError(f"{what} is refused: {self.folder / FILE} {why}; agree on it with the hospital")


OPTIONAL: Table = {"data": ".", "device": "auto", "privacy.ledger": "privacy"}
OPTIONAL |= {"allow.noised": NONE, "allow.noise": 0.0, "allow.loss_bound": 0.0}

CONNECTION = "connection."
"""The keys of the way to the coordinator, which `client.hospital` reads."""


def read_policy(folder: Path) -> Policy:
    """The policy of the site in `folder`.

    Raises:
        PolicyError: there is none, or it cannot be read to the last key: then nothing is trained.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise PolicyError(f"{path} is missing: without the hospital's own policy nothing is trained; docs/privacy.md")
    try:
        return _parse(path, load_scenario(path))
    except SettingsError as error:
        raise PolicyError(f"{path}: {error}; nothing is trained until it is mended") from error


def _parse(path: Path, given: Table) -> Policy:
    sections = {"privacy": Demands, "allow": Allowed}
    known = {"data", "device"} | {f"{name}.{key}" for name, cls in sections.items() for key in cls.__annotations__}
    given = {key: value for key, value in given.items() if not key.startswith(CONNECTION)}
    for key in given:
        if key not in known:
            raise SettingsError(f"unknown key {key!r}{nearest(key, known, f'; known are: {sorted(known)}')}")
    table = OPTIONAL | given
    place = section(flatten({"site": {key: table[key] for key in ("data", "device")}}, str(path)), "site", Place)
    demands = section(table, "privacy", Demands)
    for key in ("batch", "patients", "images"):
        if (few := getattr(demands, key)) < 2:
            raise SettingsError(f"privacy.{key} = {few} must be at least 2: an update of one alone shows that one")
    allowed = section(table, "allow", Allowed)
    if allowed.noised != NONE and demands.unit == NONE:
        raise SettingsError(
            f"allow.noised = {allowed.noised!r} with privacy.unit = {NONE!r}: noise on scores hides nobody beside an"
            " update without any; ask for privacy, or leave it out"
        )
    return Policy(path.parent, place, demands, allowed)


OPEN = Policy(
    Path(),
    Place(data=".", device="auto"),
    Demands("none", float("inf"), float("inf"), 0.5, batch=1, patients=1, images=1, ledger="privacy"),
    Allowed(strategies=ANY, scalars=ANY, decimals=17, code=ANY, settings=ANY, noised=NONE, noise=0.0, loss_bound=0.0),
)
"""What a pretend hospital allows in a simulation; never that of a real one."""
