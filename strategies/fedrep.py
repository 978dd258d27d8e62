"""FedRep: a shared body and a head of each site's own.

Collins et al., Exploiting Shared Representations for Personalized Federated Learning, ICML 2021, algorithm 1,
https://arxiv.org/abs/2102.07078

    site:    y_i <- body of x, head of its own; first epochs on the head alone, then one epoch on the body alone
    server:  x   <- sum_i p_i y_i for the body; heads stay at the sites

Of the local epochs the last one is the body's, so a round costs as many as any other strategy's. The head is what
lies at or under a module called `head` (`strategies.layers`); a network without one is all body.
"""

from strategies.fedavg import FedAvg
from strategies.groups import group_of
from strategies.layers import head
from strategies.local import Arrays, Phase


class FedRep(FedAvg):
    """FedAvg of the body; each site fits a head to it, which never leaves the site.

    Args:
        weighting: "examples" or "uniform".
    """

    needs_epochs = 2
    remembers = True

    def kept(self, x: Arrays) -> frozenset[str]:
        return head(x)

    def phases(self, x: Arrays, epochs: int, received: Arrays, state: Arrays) -> list[Phase]:
        own = head(x)
        body = frozenset(name for name, a in x.items() if group_of(name, a.dtype) == "parameter") - own
        return [Phase(epochs - 1, start=self.personal(x, state), only=own), Phase(1, only=body)]
