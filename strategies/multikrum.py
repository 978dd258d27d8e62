"""Multi-Krum: the mean of the n - f updates that lie nearest to most of the others.

Blanchard et al., Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent, NeurIPS 2017, section 5,
https://arxiv.org/abs/1703.02757

    site:    as FedAvg
    server:  scores as Krum
             x <- mean of the n - f models y_i of the lowest scores, unweighted

It withstands f sites when n >= 2 f + 3. Buffers are pooled over the chosen sites.
"""

from strategies.krum import Krum


class MultiKrum(Krum):
    """Leaves out as many updates as may be bad and averages the rest.

    Args:
        byzantine: f, the sites that may be anything, at least 0.
    """

    def chosen(self, count: int) -> int:
        return count - self.byzantine
