"""What every strategy is: a server half, a site half, and the state that the journal keeps between rounds."""

import inspect
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Arrays = Mapping[str, npt.NDArray[Any]]
Weighting = Literal["examples", "uniform"]


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

    corrects_gradients: ClassVar[bool] = False
    """Whether `correct` does anything: if so, the trainer keeps a copy of the weights it started from."""

    def __init__(self) -> None:
        self.state: dict[str, npt.NDArray[Any]] = {}
        """Server state between rounds, by name; the journal saves it and puts it back."""

    @abstractmethod
    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        """The next global model from x and the sites' updates; neither is changed.

        `self.state` moves only when the whole iterable was consumed without an error, so a round that fails
        half-way leaves the strategy as it was.

        Raises:
            ValueError: no updates, or one whose names, shapes or number of examples cannot be right.
        """

    def correct(self, weights: Sequence["torch.Tensor"], start: Sequence["torch.Tensor"]) -> None:  # noqa: B027
        """The site's half: change `weights[i].grad` in place, after the backward pass and before the step.

        Args:
            weights: the trainable tensors y of the site's model, with gradients.
            start: the same tensors as the round began, x.
        """

    @classmethod
    def hyperparameters(cls) -> dict[str, Any]:
        """Keyword-only hyper-parameters of this strategy with their defaults."""
        parameters = inspect.signature(cls.__init__).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


def check_range(name: str, value: float, low: float, high: float = float("inf")) -> float:
    """`value` when it lies in [low, high], else ValueError naming the hyper-parameter and its range."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        span = f"at least {low}" if high == float("inf") else f"between {low} and {high}"
        raise ValueError(f"{name} = {value!r} must be a number {span}")
    return float(value)


def check_weighting(weighting: str) -> Weighting:
    """`weighting` when it is a known word, else ValueError."""
    if weighting not in get_args(Weighting):
        raise ValueError(f"weighting = {weighting!r} must be one of: {', '.join(get_args(Weighting))}")
    return weighting  # type: ignore[return-value]
