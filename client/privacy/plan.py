"""What a study's budget comes to at one site: sampling rate, steps and noise, fixed before the first step."""

from dataclasses import dataclass

from client.privacy.accounting import Charge, check_delta, noise_for
from client.privacy.settings import PrivacySettings
from protocol.errors import SettingsError
from strategies import Strategy

BOUNDS = (1e-6, 1e6)
"""Smallest and largest clipping bound. Near 1e-38 float32 has few digits left, and a gradient scaled to the bound may
come out well above it, so that the noise is too small for what it covers."""


@dataclass(frozen=True)
class Plan:
    """How this site trains privately.

    Attributes:
        settings: the study's.
        units: patients (or examples) that are drawn from.
        rate: q, with which each comes into a step.
        batch: L = q units, the expected number in a step.
        noise: sigma, in units of the clipping bound.
        steps: in an epoch: the fewest that draw as many as there are units, rounded.
    """

    settings: PrivacySettings
    units: int
    rate: float
    batch: float
    noise: float
    steps: int

    def charge(self, epochs: int) -> Charge:
        """What `epochs` epochs cost."""
        return Charge(self.noise, self.rate, epochs * self.steps)


def make_plan(
    settings: PrivacySettings, units: int, epochs: int, rounds: int, beside: tuple[Charge, ...] = ()
) -> Plan:
    """The plan with which `rounds` rounds of `epochs` epochs, and `beside`, cost (epsilon, delta) at most.

    Noise is for all rounds, though the site may be asked in fewer. A site with fewer patients than `privacy.batch`
    takes all of them in every step.

    Raises:
        SettingsError: delta is not below 1 / units, or no noise is enough.
    """
    check_delta(settings.delta, units)
    batch = min(settings.batch, units)
    rate = batch / units
    steps = max(1, round(units / batch))
    noise = noise_for(settings.epsilon, settings.delta, rate, rounds * epochs * steps, settings.accountant, beside)
    return Plan(settings, units, rate, batch, noise, steps)


def check_private(settings: PrivacySettings, strategy: Strategy, norm: str) -> None:
    """What differential privacy does not go with.

    Raises:
        SettingsError: names the setting, why, and the cure.
    """
    if norm != "group":
        raise SettingsError(
            f"model.norm = {norm!r} does not go with privacy.epsilon = {settings.epsilon:g}: it mixes the images of a"
            " batch, so that no image has a gradient of its own; use --set model.norm=group"
        )
    if not BOUNDS[0] <= settings.clip <= BOUNDS[1]:
        raise SettingsError(
            f"privacy.clip = {settings.clip:g} must be from {BOUNDS[0]:g} to {BOUNDS[1]:g}: beyond, float32 rounds"
            " gradients off the bound"
        )
    if settings.ema and strategy.needs_sgd:
        raise SettingsError(
            f"privacy.ema = {settings.ema:g} does not go with a strategy that reads a site's update as a sum of"
            " gradients; use --set privacy.ema=0 or another strategy"
        )
