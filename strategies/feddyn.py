"""FedDyn: dynamic regularisation, so that the sites' optima agree with the global one.

Acar et al., Federated Learning Based on Dynamic Regularization, ICLR 2021, algorithm 1,
https://arxiv.org/abs/2111.04263

    site:    minimise f_i(y) - <g_i, y> + a/2 |y - x|^2, so each step's gradient is  grad f_i(y) - g_i + a (y - x)
             g_i <- g_i - a (y_i - x)                   g_i = 0 at first, kept at the site
    server:  h <- h - a (1/N) sum_i (y_i - x)           over the S replies; h = 0 at first
             x <- mean_i y_i - h / a
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_range
from strategies.groups import group_of
from strategies.local import Arrays, Journey, Phase, State
from strategies.mean import BufferMean, ParameterMean, checked, like


class FedDyn(Strategy):
    """A linear term g_i at each site and its counterpart h at the server take out the drift.

    Args:
        alpha: a, above 0.
    """

    remembers = True

    def __init__(self, *, alpha: float = 0.1) -> None:
        super().__init__()
        self.alpha = check_range("alpha", alpha, 0.0, above=True)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        models, buffers = ParameterMean(x), BufferMean(x)
        replies = 0
        for update in checked(x, updates):
            models.add(update.arrays, 1.0)
            buffers.add(update.arrays, float(update.examples))
            replies += 1
        share, moved, linear = replies / (self.sites or replies), {}, {}
        for name, y in models.mean().items():
            h = np.asarray(self.state.get(name, 0.0) - self.alpha * share * (y - x[name]))
            moved[name], linear[name] = y - h / self.alpha, h
        self.state = linear
        return like(x, moved | buffers.mean())

    def phases(self, x: Arrays, epochs: int, received: Arrays, state: Arrays) -> list[Phase]:
        return [Phase(epochs, start=x, pull=self.alpha, drift={name: -g for name, g in state.items()})]

    def remember(self, x: Arrays, received: Arrays, state: Arrays, journeys: Sequence[Journey]) -> State:
        y = journeys[-1].end
        parameters = {name: a for name, a in x.items() if group_of(name, a.dtype) == "parameter"}
        return like(parameters, {n: state.get(n, 0.0) - self.alpha * (y[n] - a) for n, a in parameters.items()})
