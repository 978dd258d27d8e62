"""The `privacy.*` settings of a study: what it may cost, and how the noisy steps are made."""

import math
from dataclasses import dataclass
from typing import Literal

from client.privacy.accounting import Accountant
from protocol.settings import require

Unit = Literal["patient", "example"]
Clipping = Literal["flat", "layer", "automatic"]
Trainable = Literal["all", "decoder", "head_and_norms"]


@dataclass(frozen=True)
class PrivacySettings:
    """See the table in pyproject.toml; `epsilon` 0 is training without differential privacy."""

    epsilon: float
    delta: float
    unit: Unit
    batch: int
    physical: int
    clipping: Clipping
    clip: float
    trainable: Trainable
    views: int
    ema: float
    accountant: Accountant

    def __post_init__(self) -> None:
        require(0 <= self.epsilon < math.inf, "epsilon", self.epsilon, "0 (no differential privacy) or more")
        require(0 < self.delta < 1, "delta", self.delta, "between 0 and 1")
        require(self.batch >= 2, "batch", self.batch, "at least 2: noise would drown the gradient of one alone")
        require(self.physical >= 1, "physical", self.physical, "at least 1")
        require(self.clip > 0, "clip", self.clip, "above 0")
        require(self.views >= 1, "views", self.views, "at least 1")
        require(0 <= self.ema < 1, "ema", self.ema, "0 (no average) or more, and below 1")

    @property
    def asked(self) -> bool:
        """Whether the study asks for differential privacy."""
        return self.epsilon > 0
