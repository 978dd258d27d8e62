"""FedAvgM: federated averaging with server momentum.

Hsu et al., Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification, 2019,
section 4.3, https://arxiv.org/abs/1909.06335

    site:    as FedAvg
    server:  D = sum_i p_i (y_i - x)
             v <- b v + D
             x <- x + eta_g v
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_range, check_weighting
from strategies.groups import group_of
from strategies.local import Arrays
from strategies.mean import like, weighted_mean


class FedAvgM(Strategy):
    """FedAvg whose mean update drives a heavy ball at the server; statistics and counters stay plain means.

    Args:
        server_lr: eta_g, at least 0.
        momentum: b, at least 0 and below 1.
        weighting: "examples" or "uniform".
    """

    def __init__(self, *, server_lr: float = 1.0, momentum: float = 0.9, weighting: str = "examples") -> None:
        super().__init__()
        self.server_lr = check_range("server_lr", server_lr, 0.0)
        self.momentum = check_range("momentum", momentum, 0.0, 1.0, below=True)
        self.weighting = check_weighting(weighting)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        mean = weighted_mean(x, updates, self.weighting)
        velocity = {}
        for name, y in mean.items():
            if group_of(name, x[name].dtype) == "parameter":
                v = np.asarray(self.momentum * self.state.get(name, np.zeros(y.shape)) + (y - x[name]))
                velocity[name] = v
                mean[name] = x[name] + self.server_lr * v
        self.state = velocity
        return like(x, mean)
