"""Ditto: beside the global model every site trains one of its own, held near it.

Li et al., Ditto: Fair and Robust Federated Learning Through Personalization, ICML 2021, algorithm 1,
https://arxiv.org/abs/2012.04221

    site:    v_i: as many steps with the gradient  g_i(v_i) + lam (v_i - x);    v_i = x at first, kept at the site
             y_i: as FedAvg
    server:  as FedAvg
"""

from collections.abc import Sequence

from strategies.base import check_range
from strategies.fedavg import FedAvg
from strategies.local import Arrays, Journey, Phase, State


class Ditto(FedAvg):
    """FedAvg whose sites use models of their own; a round takes twice the steps.

    Args:
        lam: pull of the site's own model towards the global one, at least 0.
        weighting: "examples" or "uniform".
    """

    remembers = True

    def __init__(self, *, lam: float = 0.1, weighting: str = "examples") -> None:
        super().__init__(weighting=weighting)
        self.lam = check_range("lam", lam, 0.0)

    def personal(self, x: Arrays, state: Arrays) -> Arrays:
        return state or x

    def phases(self, x: Arrays, epochs: int, received: Arrays, state: Arrays) -> list[Phase]:
        return [Phase(epochs, start=self.personal(x, state), pull=self.lam), Phase(epochs, start=x)]

    def remember(self, x: Arrays, received: Arrays, state: Arrays, journeys: Sequence[Journey]) -> State:
        return {name: v.copy() for name, v in journeys[0].end.items()}
