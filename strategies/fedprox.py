"""FedProx: a proximal term holds each site near the global model.

Li et al., Federated Optimization in Heterogeneous Networks, MLSys 2020, algorithm 2,
https://arxiv.org/abs/1812.06127

    site:    minimise f_i(y) + mu/2 |y - x|^2, so each step's gradient is  g_i(y) + mu (y - x)
    server:  as FedAvg
"""

from strategies.base import check_range
from strategies.fedavg import FedAvg
from strategies.local import Arrays, Phase


class FedProx(FedAvg):
    """FedAvg with a proximal term at the sites; mu = 0 is FedAvg bit for bit.

    Args:
        mu: strength of the proximal term, at least 0.
        weighting: "examples" or "uniform".
    """

    def __init__(self, *, mu: float = 0.01, weighting: str = "examples") -> None:
        super().__init__(weighting=weighting)
        self.mu = check_range("mu", mu, 0.0)

    def phases(self, x: Arrays, epochs: int, received: Arrays, state: Arrays) -> list[Phase]:
        return [Phase(epochs, start=x, pull=self.mu)]
