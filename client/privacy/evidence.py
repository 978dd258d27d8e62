"""What an attack that succeeded proves: lower bounds on epsilon, and how well losses tell members from others."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import beta, binom, rankdata

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Membership:
    """A loss-threshold attack (Yeom et al. 2018, https://arxiv.org/abs/1709.01604).

    Attributes:
        auc: the probability that a member's loss is below another's; 0.5 is a coin.
        epsilon: the least epsilon that the attack leaves possible, at 95 % confidence; 0 proves nothing.
    """

    auc: float
    epsilon: float


def membership(members: Floats, others: Floats, delta: float) -> Membership:
    """How well a threshold on the loss tells `members` from `others`.

    The threshold that does best on every second image of each is tried on the rest. Images are taken as independent,
    which those of one patient are not.

    Args:
        members: losses of images that were trained on; two or more.
        others: losses of images that were not; two or more.
    """
    ranks = rankdata(np.concatenate([others, members]))[: len(others)]
    auc = (ranks.sum() - len(others) * (len(others) + 1) / 2) / (len(members) * len(others))
    tried = np.unique(np.concatenate([members[::2], others[::2]]))
    gain = [(members[::2] <= cut).mean() - (others[::2] <= cut).mean() for cut in tried]
    cut = tried[int(np.argmax(gain))]
    hits, alarms = int((members[1::2] <= cut).sum()), int((others[1::2] <= cut).sum())
    return Membership(float(auc), _epsilon(hits, len(members[1::2]), alarms, len(others[1::2]), delta))


def _epsilon(hits: int, members: int, alarms: int, others: int, delta: float) -> float:
    """(epsilon, delta) bounds P[hit] <= e^epsilon P[alarm] + delta, and the same of misses and right rejections.

    Each rate is bounded by Clopper and Pearson, each of the two at half of what may go wrong.
    """
    wrong = (1 - CONFIDENCE) / 2
    hit, alarm = _least(hits, members, wrong), 1 - _least(others - alarms, others, wrong)
    reject, miss = _least(others - alarms, others, wrong), 1 - _least(hits, members, wrong)
    ratios = [(hit - delta) / alarm, (reject - delta) / miss]
    return max(0.0, *(math.log(ratio) for ratio in ratios if ratio > 0))


def _least(count: int, trials: int, wrong: float) -> float:
    return float(beta.ppf(wrong, count, trials - count + 1)) if count else 0.0


def one_run_epsilon(canaries: int, guesses: int, correct: int, delta: float, confidence: float = CONFIDENCE) -> float:
    """The least epsilon that leaves `correct` right guesses possible, at the given confidence.

    Of m canaries each was trained on or not by a fair coin of its own, in one run; of r of them it is guessed which.
    Steinke, Nasr and Jagielski 2023, https://arxiv.org/abs/2305.08846, theorem 5.2.
    """
    wrong = 1 - confidence
    low, high = 0.0, 1.0
    if _one_run_p(canaries, guesses, correct, low, delta) > wrong:
        return 0.0
    while _one_run_p(canaries, guesses, correct, high, delta) < wrong:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        if _one_run_p(canaries, guesses, correct, middle, delta) < wrong:
            low = middle
        else:
            high = middle
    return low


def _one_run_p(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """An upper bound on the probability of so many right guesses under (epsilon, delta).

    P[W >= v] + 2 m delta max_i ( P[v - i <= W < v] / i ),  W ~ Binomial(r, e^epsilon / (1 + e^epsilon))
    """
    right = 1 / (1 + math.exp(-epsilon))
    steps = np.arange(1, correct + 1)
    below = np.cumsum(binom.pmf(correct - steps, guesses, right))
    most = float((below / steps).max()) if correct else 0.0
    return min(1.0, float(binom.sf(correct - 1, guesses, right)) + 2 * canaries * delta * most)
