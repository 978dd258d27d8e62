"""q-FedAvg: sites with a higher loss count more, so that scores become more even.

Li et al., Fair Resource Allocation in Federated Learning, ICLR 2020, algorithm 2, https://arxiv.org/abs/1905.10497

    site:    as FedAvg; reports its loss F_i(x) before the first step
    server:  L = 1 / eta_l
             x <- x - sum_i F_i^q L (x - y_i) / sum_i (q F_i^(q-1) |L (x - y_i)|^2 + L F_i^q)

q = 0 is FedAvg with uniform weights. A site whose loss is 0 has nothing to gain and, for q > 0, counts for nothing.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt

from strategies.base import POSITIVE, Strategy, Update, check_range, reported
from strategies.distances import length_squared
from strategies.local import LOSS_BEFORE, RATE, Arrays
from strategies.mean import BufferMean, ParameterMean, checked, like


class QFedAvg(Strategy):
    """FedAvg that raises each site's loss to the power q + 1.

    Args:
        q: how much evenness counts, at least 0.
    """

    needs_sgd = True
    reports = (LOSS_BEFORE, RATE)

    def __init__(self, *, q: float = 0.1) -> None:
        super().__init__()
        self.q = check_range("q", q, 0.0)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        parameters, buffers = ParameterMean(x), BufferMean(x)
        q, curvatures = self.q, []
        for update in checked(x, updates):
            loss, rate = reported(update, LOSS_BEFORE, 0.0), reported(update, RATE, POSITIVE)
            buffers.add(update.arrays, float(update.examples))
            if loss >= POSITIVE or not q:  # the inverse of what is smaller has no number
                weight = loss**q / rate
                gradient = length_squared(x, update.arrays) / rate**2
                parameters.add(update.arrays, weight)
                curvatures.append(q * loss ** (q - 1) * gradient + weight if q else weight)
        if not curvatures:
            return like(x, {**x, **buffers.mean()})
        scale = parameters.total / math.fsum(curvatures)
        moved = {name: x[name] + scale * (y - x[name]) for name, y in parameters.mean().items()}
        return like(x, moved | buffers.mean())
