"""What noisy steps cost, and how much noise a budget asks for; the arithmetic is Opacus's and dp-accounting's.

A step draws each patient with probability q and adds Gaussian noise of sigma times what one patient can move it by.
Two datasets are neighbours when the images of one patient count nothing in one of them. Two bounds on the same loss
are reported, and the smaller one counts, since each holds by itself:

    RDP   Mironov, Talwar, Zhang 2019, https://arxiv.org/abs/1908.10530; to (epsilon, delta) by Balle et al. 2020,
          https://arxiv.org/abs/1905.09982. Opacus's. Quick; adds up exactly.
    PLD   the distribution of the privacy loss itself, added up by FFT (Gopi et al. 2021, who say PRV,
          https://arxiv.org/abs/2106.02848), on a grid that is above it everywhere (Doroshenko et al. 2022,
          https://arxiv.org/abs/2207.04380). dp-accounting's. Tighter by a tenth or so; takes a second.

Both take seconds to import, and only private training needs them: they are imported where they are used.
"""

import functools
import math
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.optimize import brentq

from protocol.errors import SettingsError
from protocol.settings import require

Accountant = Literal["pld", "rdp"]

ORDERS = (*range(2, 65), 80, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Orders of RDP. Whole ones, where the loss is a finite sum that every library agrees on; at others Opacus gives the
exact integral and dp-accounting a looser bound. Opacus's binomials overflow beyond 1024."""

GRID = 5e-4
"""PLD's grid, in units of RDP's epsilon over the root of the number of steps. What rounding up to it adds to epsilon
goes with its square: less than a millionth up to epsilon 8, whatever noise, rate and number of steps."""

LEAST_DELTA = 1e-9
"""Delta below which the sums of PLD would round to more than they are wanted for, and RDP alone counts."""

MOST_EPSILON = 1000.0
"""Epsilon by RDP beyond which nobody asks for a tighter one."""

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
        require(0 <= self.noise < math.inf, "noise", self.noise, "at least 0, and finite")
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
        return math.inf
    from opacus.accountants.analysis.rdp import get_privacy_spent

    total = np.sum([charge.steps * _rdp(charge.noise, charge.rate) for charge in each], axis=0)
    _hush()
    epsilon, _ = get_privacy_spent(orders=list(ORDERS), rdp=total, delta=delta)
    return max(float(epsilon), 0.0)  # in this order: one that is no number stays so, and is within no limit


@functools.cache
def _rdp(noise: float, rate: float) -> np.ndarray:
    from opacus.accountants.analysis.rdp import compute_rdp

    return np.asarray(compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=list(ORDERS)))


def pld_epsilon(charges: Iterable[Charge], delta: float) -> float:
    """Epsilon at `delta` by PLD; infinite without noise, 0 without steps.

    It is RDP's where `delta` is below LEAST_DELTA, or RDP's is above MOST_EPSILON.
    """
    return _pld_epsilon(merged(charges), delta)


@functools.lru_cache(256)
def _pld_epsilon(each: tuple[Charge, ...], delta: float) -> float:
    above = rdp_epsilon(each, delta)
    if not 0 < above < MOST_EPSILON or delta < LEAST_DELTA:
        return above
    from dp_accounting import dp_event
    from dp_accounting.pld import PLDAccountant

    # steps of all patients are one step of less noise, so they do not count
    steps = sum(1 if charge.rate == 1 else charge.steps for charge in each)
    accountant = PLDAccountant(value_discretization_interval=GRID * above / steps**0.5)
    for charge in each:
        noise = dp_event.GaussianDpEvent(charge.noise)
        step = noise if charge.rate == 1 else dp_event.PoissonSampledDpEvent(charge.rate, noise)
        accountant.compose(step, charge.steps)
    return float(accountant.get_epsilon(delta))


def epsilon_of(charges: Iterable[Charge], delta: float) -> float:
    """The smaller of both bounds."""
    each = merged(charges)
    return min(rdp_epsilon(each, delta), pld_epsilon(each, delta))


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
    bound = rdp_epsilon if accountant == "rdp" else epsilon_of

    def cost(noise: float) -> float:
        return bound([*beside, Charge(noise, rate, steps)], delta)

    high = 1.0
    while not cost(high) <= epsilon:
        high *= 2
        if high > MOST_NOISE:
            raise _too_small(epsilon, steps, bound(beside, delta))
    low = high / 2
    while cost(low) <= epsilon:
        low /= 2
    aim, width = (1 - TOLERANCE / 2) * epsilon, TOLERANCE / 8  # epsilon falls like 1 / sigma, or faster
    noise = math.exp(brentq(lambda x: cost(math.exp(x)) - aim, math.log(low), math.log(high), xtol=width))
    while not cost(noise) <= epsilon:
        noise *= 1 + width
    return noise


def _too_small(epsilon: float, steps: int, beside: float) -> SettingsError:
    why = f"privacy.epsilon = {epsilon:g} is too small for {steps} steps"
    if not beside:
        return SettingsError(f"{why}: no noise is enough; raise it, or lower federation.rounds or train.epochs")
    return SettingsError(
        f"{why}: the scores that this site's policy lets out with noise cost {beside:.4g} by themselves; raise it,"
        " lower federation.rounds, or have the hospital raise allow.noise or name fewer in allow.noised"
    )


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
