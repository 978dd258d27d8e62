"""Two sites whose optima a reader can work out by hand: f_i(x) = a_i/2 (x - b_i)^2, a = (1, 3), b = (0, 4).

With equal weights the global optimum is sum a_i b_i / sum a_i = 3. K gradient steps at rate .1 shrink a site's
distance from b_i by (1 - .1 a_i)^K: .9^K and .7^K.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from strategies import Strategy, Update
from strategies.testbed import Loss, Tensors, federate

LR = 0.1
EXACT = 400
"""Local steps that solve a site's problem to the last digits, with or without a pull of 1."""


def quadratic(a: float, b: float, name: str = "w") -> Loss:
    def loss(x: Tensors) -> torch.Tensor:
        return (a / 2 * (x[name] - b) ** 2).sum()

    return loss


LOSSES = [quadratic(1.0, 0.0), quadratic(3.0, 4.0)]


def path(
    strategy: Strategy,
    rounds: int,
    local_steps: int | Sequence[int],
    x: float = 0.0,
    examples: Sequence[int] = (1, 1),
    **missing: Any,
) -> list[float]:
    """The global model after each round of the two sites."""
    x0 = {"w": torch.tensor([x], dtype=torch.float64)}
    models = federate(strategy, x0, LOSSES, examples, rounds, local_steps, LR, **missing)
    return [model["w"].item() for model in models]


def update(site: str, value: float | Sequence[float], examples: int = 1, **scalars: float) -> Update:
    """An update whose one tensor `w` is `value`; scalars by name, with __ for a dot."""
    arrays = {"w": np.atleast_1d(np.asarray(value, np.float64))}
    return Update(site, arrays, examples, {name.replace("__", "."): number for name, number in scalars.items()})


def updates(*values: float | Sequence[float]) -> list[Update]:
    """Updates of sites a, b, c, ... with one example each."""
    return [update(chr(ord("a") + index), value) for index, value in enumerate(values)]


def at(*values: float) -> dict[str, np.ndarray]:
    """A model whose one tensor is w."""
    return {"w": np.array(values, np.float64)}
