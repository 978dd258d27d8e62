"""FedBN: every site keeps its own normalisation layers.

Li et al., FedBN: Federated Learning on Non-IID Features via Local Batch Normalization, ICLR 2021, algorithm 1,
https://arxiv.org/abs/2102.07623

    site:    y_i <- x with the site's own normalisation layers put back, then K_i steps on everything
    server:  x   <- sum_i p_i y_i for every tensor but those of normalisation layers

The layers are found by names and shapes (`strategies.layers`), be they batch, group or layer normalisation.
"""

from strategies.fedavg import FedAvg
from strategies.layers import normalisation_layers
from strategies.local import Arrays


class FedBN(FedAvg):
    """FedAvg of all but the normalisation layers, which never leave a site.

    Args:
        weighting: "examples" or "uniform".
    """

    remembers = True

    def kept(self, x: Arrays) -> frozenset[str]:
        return normalisation_layers(x)
