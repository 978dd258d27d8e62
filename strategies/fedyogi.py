"""FedYogi: Yogi at the server.

Reddi et al., Adaptive Federated Optimization, ICLR 2021, algorithm 2, https://arxiv.org/abs/2003.00295

    site:    as FedAvg
    server:  D, m and x as in `strategies.fedopt`
             v <- v - (1 - b2) D^2 sign(v - D^2)
"""

import numpy as np

from strategies.fedadam import FedAdam
from strategies.sums import Float64


class FedYogi(FedAdam):
    """FedAdam whose v moves by the size of D^2, not of v, so that one small update does not forget a large one.

    Args:
        server_lr: eta_g, at least 0.
        beta1: b1, at least 0 and below 1.
        beta2: b2, at least 0 and below 1.
        tau: adaptivity, above 0.
        weighting: "examples" or "uniform".
    """

    def second_moment(self, v: Float64, squared: Float64) -> Float64:
        return v - (1 - self.beta2) * squared * np.sign(v - squared)
