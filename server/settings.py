"""The `federation.*` settings: the strategy, how many rounds, who is asked, and when a round closes."""

import math
from dataclasses import dataclass

from protocol.settings import require


@dataclass(frozen=True)
class FederationSettings:
    """How the rounds go.

    Attributes:
        strategy: a name in `strategies.STRATEGIES`.
        rounds: how many.
        sites: how many to wait for before the first round; 0 is for the caller to fill in.
        fraction: share of the sites asked in a round, above 0 and at most 1.
        quorum: valid replies that make a round; a whole number counts sites, a decimal is a share of those asked.
        deadline: seconds an exchange may take: a round, or a turn of one where sites take turns.
        patience: rounds without a better pooled validation Dice before the run stops early; 0: never.
        max_update: largest plausible |y_i - x| as a multiple of |x|; beyond it an update is quarantined.
    """

    strategy: str
    rounds: int
    sites: int
    fraction: float
    quorum: int | float
    deadline: float
    patience: int
    max_update: float

    def __post_init__(self) -> None:
        require(self.rounds >= 1, "rounds", self.rounds, "at least 1")
        require(self.sites >= 0, "sites", self.sites, "at least 0")
        require(0 < self.fraction <= 1, "fraction", self.fraction, "above 0 and at most 1")
        whole = isinstance(self.quorum, int)
        fits = self.quorum >= 1 if whole else 0 < self.quorum <= 1
        require(fits, "quorum", self.quorum, "a number of sites (2) or a share of them (0.5)")
        require(self.deadline > 0, "deadline", self.deadline, "above 0 seconds")
        require(self.patience >= 0, "patience", self.patience, "at least 0")
        require(self.max_update > 0, "max_update", self.max_update, "above 0")

    def needed(self, asked: int) -> int:
        """Valid replies that make a round of `asked` sites."""
        return self.quorum if isinstance(self.quorum, int) else max(1, math.ceil(self.quorum * asked))
