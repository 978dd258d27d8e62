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


def sign(found: Interval, p: float, leans: int) -> int:
    """1 or -1 where interval and signed ranks agree on a difference and on its side, else 0.

    Args:
        p: Holm's, of the ranks, which are two-sided.
        leans: the side to which the ranks lean, 1 or -1, or 0.
    """
    side = 1 if found.estimate > 0 else -1
    return 0 if found.holds_zero or p >= ALPHA or leans != side else side


def difference(reference: str, found: Interval, p: float, leans: int) -> str:
    """How a contestant stands to the reference, by its paired interval and the arguments of `sign`."""
    if found.estimate == found.low == found.high == 0:
        return f"the same as {reference} on every image"
    if found.holds_zero:
        return f"no difference from {reference} is shown: the interval holds zero"
    if not sign(found, p, leans):
        side, other = ("above", "below") if found.estimate > 0 else ("below", "above")
        ranks = "do not agree" if p >= ALPHA else f"lean {other} it"
        return f"no difference is shown: the interval lies {side} zero, but the ranks {ranks} (p = {p:.2g})"
    return f"{'higher' if found.estimate > 0 else 'lower'} than {reference} on these sites"


def best(leader: str, others: Mapping[str, tuple[Interval, float, int]]) -> str:
    """Whether the strategy with the highest Dice may be called the best.

    Args:
        others: for each other strategy the interval of leader - other, at the level that suits so many, and the
            other arguments of `sign`.
    """
    if not others:
        return f"{leader} is the only strategy: nothing can be said of which is best."
    near = [name for name, shown in others.items() if sign(*shown) < 1]
    if near:
        return (
            f"No strategy can be called the best. {leader} has the highest test Dice, but it is not shown to differ"
            f" from {', '.join(near)}."
        )
    return f"{leader} is the best of these on these sites: against each other its interval lies above zero."


def gain(found: Interval, p: float, leans: int) -> str:
    """What may be said of one hospital, by the arguments of `sign`."""
    return {1: "gains", -1: "loses", 0: "not shown"}[sign(found, p, leans)]


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
