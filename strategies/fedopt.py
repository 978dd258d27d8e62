"""FedOpt: an adaptive optimizer at the server, driven by the sites' mean update.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2, https://arxiv.org/abs/2003.00295

    site:    as FedAvg
    server:  D = sum_i p_i (y_i - x)
             m <- b1 m + (1 - b1) D,      m_0 = 0
             v <- as FedAdam, FedYogi or FedAdagrad say,      v_0 = tau^2
             x <- x + eta_g m / (sqrt(v) + tau)        without bias correction
"""

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_range, check_weighting
from strategies.groups import group_of
from strategies.local import Arrays, State
from strategies.mean import like, weighted_mean
from strategies.sums import Float64


class FedOpt(Strategy):
    """What the three have in common; statistics and counters never see the optimizer.

    Args:
        server_lr: eta_g, at least 0: about how far a parameter moves in a round, at most.
        beta1: b1, decay of the first moment, at least 0 and below 1: at 1 nothing would ever move.
        tau: adaptivity, above 0: updates well below it are taken almost as they are.
        weighting: "examples" or "uniform".
    """

    def __init__(self, *, server_lr: float, beta1: float, tau: float, weighting: str) -> None:
        super().__init__()
        self.server_lr = check_range("server_lr", server_lr, 0.0)
        self.beta1 = check_range("beta1", beta1, 0.0, 1.0, below=True)
        self.tau = check_range("tau", tau, 0.0, above=True)
        self.weighting = check_weighting(weighting)

    @abstractmethod
    def second_moment(self, v: Float64, squared: Float64) -> Float64:
        """The next v from the last one and D^2."""

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        mean = weighted_mean(x, updates, self.weighting)
        moments: State = {}
        for name, y in mean.items():
            if group_of(name, x[name].dtype) == "parameter":
                update = np.asarray(y - x[name])
                last = self.state.get(f"m.{name}", np.zeros(y.shape))
                m = np.asarray(self.beta1 * last + (1 - self.beta1) * update)
                v = self.state.get(f"v.{name}", np.full(y.shape, self.tau**2))
                v = np.asarray(self.second_moment(v, update**2))
                moments |= {f"m.{name}": m, f"v.{name}": v}
                mean[name] = x[name] + self.server_lr * m / (np.sqrt(v) + self.tau)
        self.state = moments
        return like(x, mean)
