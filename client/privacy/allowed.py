"""What may leave a site beside the update: the `allow.*` keys of site.yaml (`client.privacy.policy`)."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from client.privacy.noised import LOSS
from protocol.settings import require
from strategies import STRATEGIES
from strategies.local import STEPS

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
        for name in words_of(self.strategies):
            require(name in (ANY, *STRATEGIES), "strategies", name, f"{ANY} or of: {', '.join(STRATEGIES)}")
        names = [] if self.noised == NONE else words_of(self.noised)
        for name in names:
            known = f"{NONE} or of: {', '.join(BOUNDED)}; no other number has a bound that noise could be made for"
            require(name in BOUNDED, "noised", name, known)
            named = self.scalars == ANY or name in words_of(self.scalars)
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

    @property
    def scores(self) -> dict[str, dict[str, float]]:
        """Of each split the scores that leave with noise alone, and the bound of each."""
        names = [] if self.noised == NONE else words_of(self.noised)
        each = {name: self.loss_bound if name.endswith(LOSS) else 1.0 for name in names}
        return {
            split: {name.partition(".")[2]: bound for name, bound in each.items() if name.startswith(f"{split}.")}
            for split in ("val", "test")
        }

    @property
    def terms(self) -> str:
        """What is let out with noise alone, and with how much."""
        return f"{self.scores}, {self.noise!r}"

    @property
    def uncovered(self) -> list[str]:
        """The scalars that may leave as they are and say something of patients; `any` alone where all may."""
        covered = {NONE, *PUBLIC, *words_of(self.noised)}
        return [name for name in words_of(self.scalars) if name not in covered]

    def let_out(self, scalars: Mapping[str, float], path: Path) -> dict[str, float]:
        """The scalars that may leave, rounded; the others are dropped, which the log says once, naming `path`.

        What follows from the settings and from public numbers stays exact: sums of learning rates and numbers of
        steps, since strategies divide by them, and epsilon, of which rounding would tell too little.
        """
        allowed = words_of(self.scalars)
        out = {name: value for name, value in scalars.items() if self.scalars == ANY or name in allowed}
        if withheld := sorted(scalars.keys() - out.keys()):
            _tell_withheld(path, tuple(withheld))
        return {name: value if name in EXACT else round(value, self.decimals) for name, value in out.items()}


@functools.cache
def _tell_withheld(path: Path, names: tuple[str, ...]) -> None:
    log.warning("kept here, as allow.scalars of %s does not name them: %s", path, ", ".join(names))


def words_of(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]
