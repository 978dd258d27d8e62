"""Aggregation strategies, a page each: the server's half and the site's half with their equations.

They know no network, no hospital and no Flower: `aggregate(x, updates)` takes a dict of numpy arrays and an
iterable of `Update`, consumed as the replies arrive.
"""

from strategies.base import Arrays, Strategy, Update
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedprox import FedProx

STRATEGIES: dict[str, type[Strategy]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedprox": FedProx,
}

__all__ = ["STRATEGIES", "Arrays", "Strategy", "Update"]
