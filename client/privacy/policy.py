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

import functools
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from client.privacy.accounting import check_delta
from client.privacy.fingerprint import code_version, settings_hash
from client.privacy.ledger import Limit, Limits
from client.privacy.noised import LOSS
from client.privacy.settings import PrivacySettings
from protocol.errors import PolicyError, SettingsError
from protocol.settings import Table, flatten, load_scenario, nearest, require, section
from strategies import STRATEGIES
from strategies.local import STEPS

FILE = "site.yaml"
ANY, NONE = "any", "none"

BOUNDED = ("val.dice", "val.iou", "val.loss", "test.dice", "test.iou", "test.nsd", "test.loss")
"""The scalars to which a patient's share is bounded, so that noise can cover it. `train.loss` is not among them: it
is measured on the very patients whose draws must stay secret for the steps to cost what they do."""

EPSILON = "epsilon"
"""Scalar: what the study has cost this site's patients, this round with it."""

EXACT = (*STEPS, EPSILON)
"""The scalars that are never rounded."""

PUBLIC = ("train.images", "val.images", "test.images", "train.steps", *EXACT)
"""The scalars that say nothing of any patient: they follow from the settings and from public numbers."""

log = logging.getLogger(__name__)


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
class Allowed:
    """The `allow.*` keys of site.yaml; words with commas between, or `any`."""

    strategies: str
    scalars: str
    decimals: int
    code: str
    settings: str
    noised: str
    noise: float
    loss_bound: float

    def __post_init__(self) -> None:
        require(0 <= self.decimals <= 17, "decimals", self.decimals, "from 0 to 17")
        for name in _words(self.strategies):
            require(name in (ANY, *STRATEGIES), "strategies", name, f"{ANY} or of: {', '.join(STRATEGIES)}")
        names = [] if self.noised == NONE else _words(self.noised)
        for name in names:
            known = f"{NONE} or of: {', '.join(BOUNDED)}; no other number has a bound that noise could be made for"
            require(name in BOUNDED, "noised", name, known)
            named = self.scalars == ANY or name in _words(self.scalars)
            require(named, "noised", name, "among allow.scalars, too: what is not named there stays here")
        require(
            self.noise > 0 if names else self.noise == 0, "noise", self.noise, "above 0 where allow.noised names any"
        )
        losses = any(name.endswith(LOSS) for name in names)
        require(
            self.loss_bound > 0 if losses else self.loss_bound == 0,
            "loss_bound",
            self.loss_bound,
            "above 0 where allow.noised names a loss",
        )


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
        if self.allow.strategies != ANY and strategy not in _words(self.allow.strategies):
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
            if self.allow.scalars != ANY and name not in _words(self.allow.scalars):
                raise self._refused(f"{name}, which the server needs,", "does not name it among allow.scalars")

    def limits(self, table: Table) -> Limits:
        """What the ledger holds a study with these settings to: its own budget, and the hospital's."""
        settings = section(table, "privacy", PrivacySettings)
        own = Limit(settings.epsilon, settings.delta, "privacy.epsilon", settings.accountant)
        theirs = replace(own, epsilon=self.privacy.epsilon_study, word=f"privacy.epsilon_study of {FILE}")
        every = Limit(self.privacy.epsilon_all, self.privacy.delta, f"privacy.epsilon_all of {FILE}")
        return Limits((own, theirs), every)

    @property
    def noised(self) -> dict[str, dict[str, float]]:
        """Of each split the scores that leave with noise alone, and the bound of each."""
        names = [] if self.allow.noised == NONE else _words(self.allow.noised)
        each = {name: self.allow.loss_bound if name.endswith(LOSS) else 1.0 for name in names}
        return {
            split: {name.partition(".")[2]: bound for name, bound in each.items() if name.startswith(f"{split}.")}
            for split in ("val", "test")
        }

    @property
    def terms(self) -> str:
        """What is let out with noise alone, and with how much."""
        return f"{self.noised}, {self.allow.noise!r}"

    @property
    def uncovered(self) -> list[str]:
        """The scalars that may leave as they are and say something of patients; `any` alone where all may."""
        covered = {NONE, *PUBLIC, *_words(self.allow.noised)}
        return [name for name in _words(self.allow.scalars) if name not in covered]

    def let_out(self, scalars: Mapping[str, float]) -> dict[str, float]:
        """The scalars that may leave, rounded; the others are dropped, which the log says once.

        What follows from the settings and from public numbers stays exact: sums of learning rates and numbers of
        steps, since strategies divide by them, and epsilon, of which rounding would tell too little.
        """
        allowed = _words(self.allow.scalars)
        out = {name: value for name, value in scalars.items() if self.allow.scalars == ANY or name in allowed}
        if withheld := sorted(scalars.keys() - out.keys()):
            _tell_withheld(self.folder / FILE, tuple(withheld))
        return {name: value if name in EXACT else round(value, self.allow.decimals) for name, value in out.items()}

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


@functools.cache
def _tell_withheld(path: Path, names: tuple[str, ...]) -> None:
    log.warning("kept here, as allow.scalars of %s does not name them: %s", path, ", ".join(names))


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


OPEN = Policy(
    Path(),
    Place(data=".", device="auto"),
    Demands("none", float("inf"), float("inf"), 0.5, batch=1, patients=1, images=1, ledger="privacy"),
    Allowed(strategies=ANY, scalars=ANY, decimals=17, code=ANY, settings=ANY, noised=NONE, noise=0.0, loss_bound=0.0),
)
"""What a pretend hospital allows in a simulation; never that of a real one."""
