"""FedDG-GA: generalisation adjustment moves weight to the sites that the global model serves worse than their own.

Zhang et al., Federated Domain Generalization with Generalization Adjustment, CVPR 2023, section 3,
https://openaccess.thecvf.com/content/CVPR2023/html/Zhang_Federated_Domain_Generalization_With_Generalization_Adjustment_CVPR_2023_paper.html

    site:    reports E_i, its validation loss, of the model before and after averaging: of its y_i at the end of a
             round, and of x as the next round begins
    server:  gap_i = E_i(x) - E_i(y_i)
             a_i <- a_i + s_t (gap_i - mean gap) / max_j |gap_j - mean gap|,     s_t = s0 (1 - t/T)
             a_i clipped to [0, 1], then divided by their sum;      a_i = 1/N at first
             x   <- sum_i a_i y_i,  over the replies received

t counts finished rounds, so the first round is a plain mean, and the last weights are set with the smallest step.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from strategies.base import Strategy, Update, check_range, reported
from strategies.local import VAL_LOSS, VAL_LOSS_AFTER, Arrays
from strategies.mean import BufferMean, ParameterMean, like
from strategies.together import gather

WEIGHT, OWN_LOSS, FINISHED = "weight.", "own_loss.", "rounds"


class FedDGGA(Strategy):
    """FedAvg whose weights follow the gaps between the global model and each site's own.

    Args:
        step: s0, the step of the weights in the first rounds, between 0 and 1.
    """

    needs_all = True
    reports = (VAL_LOSS, VAL_LOSS_AFTER)

    def __init__(self, *, step: float = 0.2) -> None:
        super().__init__()
        self.step = check_range("step", step, 0.0, 1.0)

    def aggregate(self, x: Arrays, updates: Iterable[Update]) -> dict[str, npt.NDArray[Any]]:
        counted = gather(x, updates, self)
        losses = {update.site: reported(update, VAL_LOSS) for update in counted}
        own = {update.site: reported(update, VAL_LOSS_AFTER) for update in counted}
        a = self._weights(losses)
        parameters, buffers = ParameterMean(x), BufferMean(x)
        for update in counted:
            parameters.add(update.arrays, a[update.site])
            buffers.add(update.arrays, float(update.examples))
        finished = int(self.state.get(FINISHED, 0))
        self.state = {
            **self.state,
            **{WEIGHT + site: np.asarray(weight) for site, weight in a.items()},
            **{OWN_LOSS + site: np.asarray(loss) for site, loss in own.items()},
            FINISHED: np.asarray(finished + 1),
        }
        moved = parameters.mean() if parameters.total else dict(x)
        return like(x, moved | buffers.mean())

    def _weights(self, losses: dict[str, float]) -> dict[str, float]:
        """The weights of all sites ever heard of, from the losses that those who replied now report of x."""
        known = {name.removeprefix(WEIGHT): float(a) for name, a in self.state.items() if name.startswith(WEIGHT)}
        newcomer = sum(known.values()) / len(known) if known else 1.0
        a = dict(sorted((dict.fromkeys(losses, newcomer) | known).items()))
        gaps = {site: e - float(self.state[OWN_LOSS + site]) for site, e in losses.items() if site in known}
        mean = sum(gaps.values()) / max(1, len(gaps))
        largest = max((abs(gap - mean) for gap in gaps.values()), default=0.0)
        if largest:
            done = int(self.state[FINISHED]) / self.rounds if self.rounds else 0.0
            for site, gap in gaps.items():
                a[site] += self.step * (1.0 - done) * (gap - mean) / largest
        clipped = {site: min(1.0, max(0.0, weight)) for site, weight in a.items()}
        total = sum(clipped.values())
        return {site: weight / total for site, weight in clipped.items()}
