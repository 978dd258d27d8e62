"""FedAdagrad: Adagrad at the server.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2, https://arxiv.org/abs/2003.00295

    site:    as FedAvg
    server:  D, m and x as in `strategies.fedopt`
             v <- v + D^2
"""

from strategies.fedopt import FedOpt
from strategies.sums import Float64


class FedAdagrad(FedOpt):
    """v never forgets, so steps only shrink.

    Args:
        server_lr: eta_g, at least 0.
        beta1: b1, at least 0 and below 1.
        tau: adaptivity, above 0.
        weighting: "examples" or "uniform".
    """

    def __init__(
        self, *, server_lr: float = 0.01, beta1: float = 0.9, tau: float = 1e-3, weighting: str = "examples"
    ) -> None:
        super().__init__(server_lr=server_lr, beta1=beta1, tau=tau, weighting=weighting)

    def second_moment(self, v: Float64, squared: Float64) -> Float64:
        return v + squared
