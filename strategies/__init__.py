"""Aggregation strategies, a page each: the server's half and the site's half with their equations.

They know no network, no hospital and no Flower: `aggregate(x, updates)` takes a dict of numpy arrays and an
iterable of `Update`, consumed as the replies arrive. `strategies.site` runs a site's half round by round,
`strategies.testbed` both halves on any loss.
"""

from strategies.base import Strategy, Update
from strategies.cyclic import Cyclic
from strategies.ditto import Ditto
from strategies.fedadagrad import FedAdagrad
from strategies.fedadam import FedAdam
from strategies.fedavg import FedAvg
from strategies.fedavgm import FedAvgM
from strategies.fedbn import FedBN
from strategies.feddg_ga import FedDGGA
from strategies.feddyn import FedDyn
from strategies.fednova import FedNova
from strategies.fedprox import FedProx
from strategies.fedrep import FedRep
from strategies.fedyogi import FedYogi
from strategies.geometric_median import GeometricMedian
from strategies.krum import Krum
from strategies.local import Arrays
from strategies.median import Median
from strategies.multikrum import MultiKrum
from strategies.norm_bounding import NormBounding
from strategies.qfedavg import QFedAvg
from strategies.scaffold import Scaffold
from strategies.silobn import SiloBN
from strategies.trimmed_mean import TrimmedMean

STRATEGIES: dict[str, type[Strategy]] = {
    "fedavg": FedAvg,
    "fedavgm": FedAvgM,
    "fedadam": FedAdam,
    "fedyogi": FedYogi,
    "fedadagrad": FedAdagrad,
    "fedprox": FedProx,
    "fednova": FedNova,
    "scaffold": Scaffold,
    "feddyn": FedDyn,
    "fedbn": FedBN,
    "silobn": SiloBN,
    "ditto": Ditto,
    "fedrep": FedRep,
    "qfedavg": QFedAvg,
    "feddg_ga": FedDGGA,
    "median": Median,
    "trimmed_mean": TrimmedMean,
    "krum": Krum,
    "multikrum": MultiKrum,
    "geometric_median": GeometricMedian,
    "norm_bounding": NormBounding,
    "cyclic": Cyclic,
}

__all__ = ["STRATEGIES", "Arrays", "Strategy", "Update"]
