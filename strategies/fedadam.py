"""FedAdam: Adam at the server.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2, https://arxiv.org/abs/2003.00295

    site:    as FedAvg
    server:  D, m and x as in `strategies.fedopt`
             v <- b2 v + (1 - b2) D^2
"""

from strategies.base import check_range
from strategies.fedopt import FedOpt
from strategies.sums import Float64


class FedAdam(FedOpt):
    """v forgets old updates at a fixed rate.

    Args:
        server_lr: eta_g, at least 0.
        beta1: b1, at least 0 and below 1.
        beta2: b2, at least 0 and below 1.
        tau: adaptivity, above 0.
        weighting: "examples" or "uniform".
    """

    def __init__(
        self,
        *,
        server_lr: float = 0.01,
        beta1: float = 0.9,
        beta2: float = 0.99,
        tau: float = 1e-3,
        weighting: str = "examples",
    ) -> None:
        super().__init__(server_lr=server_lr, beta1=beta1, tau=tau, weighting=weighting)
        self.beta2 = check_range("beta2", beta2, 0.0, 1.0, below=True)

    def second_moment(self, v: Float64, squared: Float64) -> Float64:
        return self.beta2 * v + (1 - self.beta2) * squared
