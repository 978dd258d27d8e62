"""What the numbers allow to be said. Nothing is better, worse or best while its interval holds zero."""

from collections.abc import Mapping, Sequence

from simulation.compare.statistics import Interval

ALPHA = 0.05

ENOUGH = 10
"""Fewer sites, or seeds, than these deserve a warning."""

FEW, HELD = 4, 80
"""With so many sites, so many of 100 intervals hold the truth: tests/simulation/compare/test_statistics.py."""


def spoken(found: Interval, digits: int = 3) -> str:
    """An interval as words: `+0.021 (0.008 to 0.034)`."""
    return f"{found.estimate:+.{digits}f} ({found.low:+.{digits}f} to {found.high:+.{digits}f})"


def sign(found: Interval, p: float) -> int:
    """1 or -1 where interval and signed ranks agree that there is a difference, else 0."""
    if found.holds_zero or p >= ALPHA:
        return 0
    return 1 if found.estimate > 0 else -1


def difference(reference: str, found: Interval, p: float) -> str:
    """How a contestant stands to the reference, by its paired interval and Holm's p."""
    if found.estimate == found.low == found.high == 0:
        return f"the same as {reference} on every image"
    if found.holds_zero:
        return f"no difference from {reference} is shown: the interval holds zero"
    if not sign(found, p):
        side = "above" if found.estimate > 0 else "below"
        return f"no difference is shown: the interval lies {side} zero, but the ranks do not agree (p = {p:.2g})"
    return f"{'higher' if found.estimate > 0 else 'lower'} than {reference} on these sites"


def best(leader: str, others: Mapping[str, tuple[Interval, float]]) -> str:
    """Whether the strategy with the highest Dice may be called the best.

    Args:
        others: for each other strategy the interval of leader - other, at the level that suits so many, and Holm's p.
    """
    if not others:
        return f"{leader} is the only strategy: nothing can be said of which is best."
    near = [name for name, (found, p) in others.items() if sign(found, p) < 1]
    if near:
        return (
            f"No strategy can be called the best. {leader} has the highest test Dice, but it is not shown to differ"
            f" from {', '.join(near)}."
        )
    return f"{leader} is the best of these on these sites: against each other its interval lies above zero."


def gain(found: Interval, p: float) -> str:
    """What may be said of one hospital, by its interval and Holm's p."""
    return {1: "gains", -1: "loses", 0: "not shown"}[sign(found, p)]


def gains(contestant: str, verdicts: Sequence[str]) -> str:
    """Whether every hospital gains over training alone, by the `gain` of each."""
    up, down = verdicts.count("gains"), verdicts.count("loses")
    if up == len(verdicts):
        return f"With {contestant} every hospital gains: each is shown to."
    return (
        f"It is not shown that every hospital gains with {contestant}. Of {len(verdicts)}: shown to gain {up}, shown"
        f" to lose {down}, neither shown {len(verdicts) - up - down}."
    )


def few(sites: int, seeds: int, *, crossed: bool) -> str:
    """What an interval from so few sites and seeds can carry."""
    of = f"{sites} sites" if sites > 1 else "one site"
    runs = f"{seeds} seeds" if seeds > 1 else "one seed"
    words = [f"The intervals come from {of} and {runs}."]
    if sites < ENOUGH:
        words.append(
            f"Drawing among so few sites makes an interval too narrow: where sites really differ, those of {FEW}"
            f" sites held the truth in {HELD} of 100 simulated studies, not in 95. Read them as the spread of these"
            " sites, not as a promise for the next hospital."
        )
    if seeds == 1:
        words.append("One seed says nothing of how much another start or order of images would move each number.")
    elif seeds < ENOUGH:
        words.append("The same holds for so few seeds.")
    if seeds > 1 and not crossed:
        words.append(
            "Each seed makes other sites and another test set, so numbers of different seeds are not paired."
        )
    return " ".join(words)
