"""What every strategy is: a server half, a site half, and what it needs of the settings around it.

Both halves of a strategy stand on its one page. A server keeps one object for the whole study; a site keeps one too,
whose methods change nothing in it: what a site remembers goes in and out as a dict of arrays (`strategies.site`).
"""

import inspect
import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

import numpy.typing as npt

from strategies.local import Arrays, Journey, Phase, State

Weighting = Literal["examples", "uniform"]

POSITIVE = sys.float_info.min
"""The least of what must be above 0."""


@dataclass(frozen=True)
class Update:
    """What one site sends back after its local steps.

    Attributes:
        site: the site's name.
        arrays: the site's model y_i, names and shapes as in the global model x.
        examples: n_i, the images that the site trained on; positive.
        scalars: what else the site lets out (losses, step counts), by name.
    """

    site: str
    arrays: Arrays
    examples: int
    scalars: Mapping[str, float] = field(default_factory=dict)


class Strategy(ABC):
    """One aggregation algorithm; hyper-parameters are keyword-only and checked when it is made."""

    needs_sgd: ClassVar[bool] = False
    """Whether its algebra reads x - y_i as a sum of gradients, which holds for plain local SGD alone."""

    needs_statistics: ClassVar[bool] = False
    """Whether it is about the statistics of batch normalisation, so that a network without any makes it FedAvg."""

    needs_epochs: ClassVar[int] = 1
    """Fewest local epochs a round."""

    needs_all: ClassVar[bool] = False
    """Whether the rule sees all updates side by side: memory grows with their number, and nothing may hide one."""

    remembers: ClassVar[bool] = False
    """Whether a site keeps something from round to round (`remember`)."""

    reports: ClassVar[tuple[str, ...]] = ()
    """Scalars that a site must send with its update, names of `strategies.local`."""

    def __init__(self) -> None:
        self.state: dict[str, npt.NDArray[Any]] = {}
        """Server state between rounds, by name; the journal saves it and puts it back."""
        self.sites: int | None = None
        """N, the sites of the study, set by whoever runs it; None: as many as send updates."""
        self.rounds: int | None = None
        """T, the rounds of the study, set by whoever runs it; None: without end."""

    # The server's half.

    @property
    def fewest(self) -> int:
        """Fewest updates that a round can be made of."""
        return 1

    def turns(self, sites: Sequence[str]) -> list[list[str]]:
        """Who is asked when in a round: each turn starts from the model that the turn before has made."""
        return [list(sites)]

    def broadcast(self, x: Arrays) -> State:
        """What travels down beside x; names, shapes and dtypes follow from x alone."""
        return {}

    @abstractmethod
    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        """The next global model from x and the sites' updates; neither is changed.

        `self.state` moves only when the whole iterable was consumed without an error, so a round that fails
        half-way leaves the strategy as it was.

        Raises:
            ValueError: too few updates, or one whose names, shapes, examples or scalars cannot be right.
        """

    # The site's half.

    def kept(self, x: Arrays) -> frozenset[str]:
        """Names of the tensors that every site keeps for itself; the global model's stay as they were."""
        return frozenset()

    def personal(self, x: Arrays, state: Arrays) -> Arrays:
        """The model that this site would use now: what it evaluates. Here x with the site's own tensors put back.

        It is x itself when there are none, so that whoever holds x on a device need not send it there again.
        """
        own = {name: state[name] for name in self.kept(x) & state.keys()}
        return {**x, **own} if own else x

    def phases(self, x: Arrays, epochs: int, received: Arrays, state: Arrays) -> list[Phase]:
        """The site's local training; the last phase ends at y_i, the model that is sent.

        Args:
            x: the global model as it came.
            epochs: local epochs a round.
            received: what came beside x (`broadcast`).
            state: what this site remembers.
        """
        return [Phase(epochs, start=self.personal(x, state))]

    def remember(self, x: Arrays, received: Arrays, state: Arrays, journeys: Sequence[Journey]) -> State:
        """What the site remembers once the server has counted this round; one journey a phase.

        Here the tensors that it keeps for itself.
        """
        y = journeys[-1].end
        return {name: y[name].copy() for name in sorted(self.kept(x))}

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        """Keyword-only hyper-parameters of this strategy with their defaults."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def reported(update: Update, name: str, low: float = -math.inf) -> float:
    """The scalar `name` of an update: finite, at least `low`; else ValueError naming the site and the scalar."""
    if name not in update.scalars:
        raise ValueError(f"site {update.site}: the update comes without {name}, which this strategy needs")
    value = update.scalars[name]
    if not math.isfinite(value) or value < low:
        least = {0.0: " at least 0", POSITIVE: " above 0"}.get(low, "")
        raise ValueError(f"site {update.site}: {name} = {value!r} must be a finite number{least}")
    return value


def check_range(
    name: str, value: float, low: float, high: float = math.inf, *, above: bool = False, below: bool = False
) -> float:
    """`value` when it is a finite number in [low, high], else ValueError naming the hyper-parameter and its range.

    Args:
        above: whether low itself is too low.
        below: whether high itself is too high.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if number and low <= value <= high and not (above and value == low) and not (below and value == high):
        return float(value)
    span = f"above {low:g}" if above else f"at least {low:g}"
    if high < math.inf:
        span += f" and below {high:g}" if below else f" and at most {high:g}"
    raise ValueError(f"{name} = {value!r} must be a number {span}")


def check_whole(name: str, value: int, low: int) -> int:
    """`value` when it is a whole number at least `low`, else ValueError naming both."""
    if isinstance(value, bool) or not isinstance(value, int) or value < low:
        raise ValueError(f"{name} = {value!r} must be a whole number at least {low}")
    return value


def check_weighting(weighting: str) -> Weighting:
    """`weighting` when it is a known word, else ValueError."""
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting = {weighting!r} must be one of: {', '.join(get_args(Weighting))}")
    return weighting  # type: ignore[return-value]
