"""FedNova: normalised averaging, for sites that take unequal numbers of local steps.

Wang et al., Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization, NeurIPS 2020,
section 4, https://arxiv.org/abs/2007.07481

    site:    K_i steps of SGD from x to y_i; reports a_i, how often its mean gradient went into y_i - x:
             K_i for plain SGD, (K_i - r (1 - r^K_i) / (1 - r)) / (1 - r) with momentum r
    server:  d_i = (x - y_i) / a_i
             x <- x - (sum_i p_i a_i) sum_i p_i d_i

FedAvg weighs a site by p_i a_i, so whoever takes more steps pulls more; here each direction counts by p_i alone.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from strategies.base import POSITIVE, Strategy, Update, check_weighting, reported
from strategies.local import EFFECTIVE_STEPS, Arrays
from strategies.mean import BufferMean, ParameterMean, checked, like, share


class FedNova(Strategy):
    """The mean of the sites' directions, times the mean number of steps.

    Args:
        weighting: p_i, "examples" or "uniform".
    """

    needs_sgd = True
    reports = (EFFECTIVE_STEPS,)

    def __init__(self, *, weighting: str = "examples") -> None:
        super().__init__()
        self.weighting = check_weighting(weighting)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        parameters, buffers = ParameterMean(x), BufferMean(x)
        weights, steps = [], []
        for update in checked(x, updates):
            weight, a = share(update, self.weighting), reported(update, EFFECTIVE_STEPS, POSITIVE)
            parameters.add(update.arrays, weight / a)
            buffers.add(update.arrays, weight)
            weights.append(weight)
            steps.append(weight * a)
        total = math.fsum(weights)
        # sum p_i d_i = (sum p_i / a_i) (x - mean), the mean over weights p_i / a_i
        scale = math.fsum(steps) / total * parameters.total / total
        moved = {name: x[name] + scale * (y - x[name]) for name, y in parameters.mean().items()}
        return like(x, moved | buffers.mean())
