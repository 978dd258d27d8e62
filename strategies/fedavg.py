"""FedAvg: federated averaging.

McMahan et al., Communication-Efficient Learning of Deep Networks from Decentralized Data, AISTATS 2017,
algorithm 1, https://arxiv.org/abs/1602.05629

    site:    y_i <- x, then K_i steps   y_i <- y_i - eta_l g_i(y_i)
    server:  x   <- sum_i p_i y_i,      p_i = n_i / sum_j n_j over the replies received
"""

from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from strategies.base import Strategy, Update, check_weighting
from strategies.local import Arrays
from strategies.mean import like, weighted_mean


class FedAvg(Strategy):
    """The mean of the sites' models; tensors that a site keeps for itself stay as they are in x.

    Args:
        weighting: "examples" (p_i = n_i / sum n) or "uniform" (p_i = 1 / S).
    """

    def __init__(self, *, weighting: str = "examples") -> None:
        super().__init__()
        self.weighting = check_weighting(weighting)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        return like(x, weighted_mean(x, updates, self.weighting, self.kept(x)))
