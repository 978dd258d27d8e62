"""SiloBN: every site keeps its own normalisation statistics and shares their weights.

Andreux et al., Siloed Federated Learning for Multi-Centric Histopathology Datasets, DART 2020, section 3,
https://arxiv.org/abs/2008.07424

    site:    y_i <- x with the site's own running means and variances put back, then K_i steps on everything
    server:  x   <- sum_i p_i y_i for every tensor but those statistics
"""

from strategies.fedavg import FedAvg
from strategies.layers import statistics
from strategies.local import Arrays


class SiloBN(FedAvg):
    """FedAvg of all but the statistics of batch normalisation, which never leave a site.

    Args:
        weighting: "examples" or "uniform".
    """

    needs_statistics = True
    remembers = True

    def kept(self, x: Arrays) -> frozenset[str]:
        return statistics(x)
