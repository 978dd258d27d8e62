"""SCAFFOLD: control variates take the drift out of the local steps.

Karimireddy et al., SCAFFOLD: Stochastic Controlled Averaging for Federated Learning, ICML 2020, algorithm 1 with
option II, https://arxiv.org/abs/1910.06378

    site:    K steps   y_i <- y_i - eta_l (g_i(y_i) - c_i + c)      c_i = 0 at first, kept at the site
             c_i+ = c_i - c + (x - y_i) / (K eta_l)
    server:  x <- x + eta_g mean_i (y_i - x)                        over the S replies, unweighted
             c <- c + (S / N) mean_i (c_i+ - c_i)                   c = 0 at first

c_i+ - c_i = (x - y_i) / (K eta_l) - c, so the server needs no more from a site than y_i and K eta_l. With a rate that
falls over the steps K eta_l is the sum of the rates, and c_i+ the mean of the gradients weighted by theirs.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import POSITIVE, Strategy, Update, check_range, reported
from strategies.groups import group_of
from strategies.local import TRAVEL, Arrays, Journey, Phase, State
from strategies.mean import BufferMean, ParameterMean, checked, like


class Scaffold(Strategy):
    """FedAvg with a control variate c at the server, which travels down, and c_i at each site, which stays there.

    Args:
        server_lr: eta_g, at least 0.
    """

    needs_sgd = True
    remembers = True
    reports = (TRAVEL,)

    def __init__(self, *, server_lr: float = 1.0) -> None:
        super().__init__()
        self.server_lr = check_range("server_lr", server_lr, 0.0)

    def broadcast(self, x: Arrays) -> State:
        parameters = (name for name, a in x.items() if group_of(name, a.dtype) == "parameter")
        return {name: self.state.get(name, np.zeros_like(x[name])) for name in parameters}

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        models, gradients, buffers = ParameterMean(x), ParameterMean(x), BufferMean(x)
        replies = 0
        for update in checked(x, updates):
            travel = reported(update, TRAVEL, POSITIVE)
            models.add(update.arrays, 1.0)
            gradients.add(update.arrays, 1.0 / travel)
            buffers.add(update.arrays, float(update.examples))
            replies += 1
        c, pulled = self.broadcast(x), gradients.mean()
        for name, variate in c.items():
            gradient = gradients.total / replies * (x[name] - pulled[name])
            c[name] = variate + replies / (self.sites or replies) * (gradient - variate)
        moved = {name: x[name] + self.server_lr * (y - x[name]) for name, y in models.mean().items()}
        self.state = like({name: x[name] for name in c}, c)
        return like(x, moved | buffers.mean())

    def phases(self, x: Arrays, epochs: int, received: Arrays, state: Arrays) -> list[Phase]:
        drift = {name: c - state[name] if name in state else c for name, c in received.items()}
        return [Phase(epochs, start=x, drift=drift)]

    def remember(self, x: Arrays, received: Arrays, state: Arrays, journeys: Sequence[Journey]) -> State:
        y, travel = journeys[-1].end, journeys[-1].scalars()[TRAVEL]
        return like(
            {name: x[name] for name in received},
            {name: state.get(name, 0.0) - c + (x[name] - y[name]) / travel for name, c in received.items()},
        )
