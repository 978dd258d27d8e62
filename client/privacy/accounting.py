"""What noisy steps cost, and how much noise a budget asks for; the arithmetic is Opacus's.

A step draws each patient with probability q and adds Gaussian noise of sigma times what one patient can move it by.
Two datasets are neighbours when the images of one patient count nothing in one of them. Two bounds on the same loss
are reported, and the smaller one counts, since each holds by itself:

    RDP   Mironov, Talwar, Zhang 2019, https://arxiv.org/abs/1908.10530; to (epsilon, delta) by Balle et al. 2020,
          https://arxiv.org/abs/1905.09982. Quick; adds up exactly.
    PRV   Gopi, Lee, Wutschitz 2021, https://arxiv.org/abs/2106.02848; the upper end of its error bar. Tighter by a
          tenth or so; takes seconds when many kinds of steps are added up.

Opacus takes seconds to import, and only private training needs it: it is imported where it is used.
"""

import functools
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from protocol.errors import SettingsError
from protocol.settings import require

Accountant = Literal["prv", "rdp"]

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Orders of RDP. Whole ones, where the loss is a finite sum that every library agrees on; at others Opacus gives the
exact integral and dp-accounting a looser bound. Opacus's binomials overflow beyond 1024."""

PRV_ERROR = 0.01
"""Half the width of PRV's error bar on epsilon."""

TOLERANCE = 1e-3
"""How far below its target, relatively, the epsilon of a calibrated noise may lie."""


MOST_NOISE = 1e6
"""Noise multiplier beyond which none is looked for."""


@dataclass(frozen=True)
class Charge:
    """Steps of one kind: noise multiplier sigma, sampling rate q, and how many."""

    noise: float
    rate: float
    steps: int

    def __post_init__(self) -> None:
        require(self.noise >= 0, "noise", self.noise, "at least 0")
        require(0 < self.rate <= 1, "rate", self.rate, "above 0 and at most 1")
        require(self.steps >= 0, "steps", self.steps, "at least 0")


def merged(charges: Iterable[Charge]) -> tuple[Charge, ...]:
    """The same charges with steps of one kind added up; neither their order nor their grouping costs anything."""
    steps: Counter[tuple[float, float]] = Counter()
    for charge in charges:
        steps[charge.noise, charge.rate] += charge.steps
    return tuple(Charge(noise, rate, count) for (noise, rate), count in sorted(steps.items()) if count)


def rdp_epsilon(charges: Iterable[Charge], delta: float) -> float:
    """Epsilon at `delta` by RDP; infinite without noise, 0 without steps."""
    each = merged(charges)
    if not each:
        return 0.0
    if any(charge.noise == 0 for charge in each):
        return float("inf")
    from opacus.accountants.analysis.rdp import get_privacy_spent

    total = np.sum([charge.steps * _rdp(charge.noise, charge.rate) for charge in each], axis=0)
    _hush()
    epsilon, _ = get_privacy_spent(orders=list(ORDERS), rdp=total, delta=delta)
    return max(float(epsilon), 0.0)  # in this order: one that is no number stays so, and is within no limit


@functools.cache
def _rdp(noise: float, rate: float) -> np.ndarray:
    from opacus.accountants.analysis.rdp import compute_rdp

    return np.asarray(compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=list(ORDERS)))


def prv_epsilon(charges: Iterable[Charge], delta: float) -> float:
    """Epsilon at `delta` by PRV; infinite without noise, 0 without steps."""
    return _prv_epsilon(merged(charges), delta)


@functools.lru_cache(256)
def _prv_epsilon(each: tuple[Charge, ...], delta: float) -> float:
    if not each:
        return 0.0
    if any(charge.noise == 0 for charge in each):
        return float("inf")
    from opacus.accountants import PRVAccountant

    _hush()
    accountant = PRVAccountant()
    accountant.history = [(charge.noise, charge.rate, charge.steps) for charge in each]
    with np.errstate(divide="ignore"):  # log 0 at q = 1, where it means what it says
        return float(accountant.get_epsilon(delta, eps_error=PRV_ERROR))


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """The smaller of both bounds."""
    each = merged(charges)
    return min(rdp_epsilon(each, delta), prv_epsilon(each, delta))


@functools.cache
def noise_for(
    epsilon: float,
    delta: float,
    rate: float,
    steps: int,
    accountant: Accountant,
    beside: tuple[Charge, ...] = (),
) -> float:
    """The noise multiplier with which `steps` steps at sampling rate `rate` cost at most (epsilon, delta).

    Args:
        beside: what else the same budget has to pay for.

    Raises:
        SettingsError: no noise is enough.
    """
    if beside:
        return _noise_beside(epsilon, delta, rate, steps, accountant, beside)
    from opacus.accountants.utils import get_noise_multiplier

    own = {"alphas": list(ORDERS)} if accountant == "rdp" else {"eps_error": PRV_ERROR}
    _hush()
    try:
        with np.errstate(divide="ignore"):
            return float(
                get_noise_multiplier(
                    target_epsilon=epsilon,
                    target_delta=delta,
                    sample_rate=rate,
                    steps=steps,
                    accountant=accountant,
                    epsilon_tolerance=TOLERANCE * epsilon,
                    **own,
                )
            )
    except ValueError as error:
        raise SettingsError(
            f"privacy.epsilon = {epsilon:g} is too small for {steps} steps: no noise is enough; raise it, or lower"
            " federation.rounds or train.epochs"
        ) from error


def _noise_beside(
    epsilon: float, delta: float, rate: float, steps: int, accountant: Accountant, beside: tuple[Charge, ...]
) -> float:
    """By bisection, as Opacus does it for steps alone; what is returned costs no more than epsilon."""
    bound = rdp_epsilon if accountant == "rdp" else prv_epsilon

    def cost(noise: float) -> float:
        return bound([*beside, Charge(noise, rate, steps)], delta)

    alone = bound(beside, delta)
    low, high = 0.0, 1.0 if alone < (1 - TOLERANCE) * epsilon else MOST_NOISE
    while (spent := cost(high)) > epsilon:
        if high >= MOST_NOISE:
            raise SettingsError(
                f"privacy.epsilon = {epsilon:g} is too small for {steps} steps: the scores that this site's policy"
                f" lets out with noise cost {alone:.4g} by themselves; raise it, lower federation.rounds, or have the"
                " hospital raise allow.noise or name fewer in allow.noised"
            )
        low, high = high, 2 * high
    while spent < (1 - TOLERANCE) * epsilon:
        middle = (low + high) / 2
        if (between := cost(middle)) > epsilon:
            low = middle
        else:
            high, spent = middle, between
    return high


def _hush() -> None:
    """Opacus remarks that an order at the end of the list was best; such an epsilon is a bound like any other."""
    warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)


def check_delta(delta: float, patients: int) -> None:
    """Raises SettingsError unless 0 < delta < 1 / patients: at 1 / patients, giving one patient away is allowed."""
    if not 0 < delta < 1 / patients:
        raise SettingsError(
            f"privacy.delta = {delta:g} must be above 0 and below 1 / {patients} patients = {1 / patients:.3g};"
            f" use --set privacy.delta={0.1 / patients:.1g}"
        )
