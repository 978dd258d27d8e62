"""All numbers of a comparison, from the image scores and results of its runs: the content of compare.json."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from simulation.compare import wording
from simulation.compare.statistics import (
    LEVEL,
    Interval,
    Key,
    Values,
    differences,
    estimate,
    holm,
    interval,
    leaning,
    signed_rank,
)

Result = Mapping[str, Any]


@dataclass(frozen=True)
class Entrant:
    """One contestant: Dice and IoU of each test image, and the result.json of its runs by seed."""

    name: str
    strategy: bool
    dice: Values
    iou: Values
    results: Mapping[int, Sequence[Result]]


@dataclass(frozen=True)
class Standing:
    """One row of the table; each number is a mean over seeds, `deviation` their standard deviation (None of one)."""

    name: str
    strategy: bool
    dice: float
    deviation: float | None
    iou: float
    site_mean: float
    worst_site: float
    bytes: float | None
    seconds: float | None
    seeds: tuple[float, ...]


@dataclass(frozen=True)
class Difference:
    """A contestant against the reference, and what may be said of it; `better`, `worse` and `same` count images.

    `leans` is the side to which the signed ranks lean (`statistics.leaning`).
    """

    name: str
    interval: Interval
    p: float
    p_holm: float
    leans: int
    better: int
    worse: int
    same: int
    verdict: str


@dataclass(frozen=True)
class Gain:
    """A hospital with a strategy against its own model alone; `seed` None where it is the same in every seed."""

    strategy: str
    seed: int | None
    site: str
    images: int
    alone: float
    interval: Interval
    p_holm: float
    verdict: str


@dataclass(frozen=True)
class Matrix:
    """Mean test Dice of models (rows) on sites (columns); `seed` None where sites are the same in every seed."""

    seed: int | None
    models: tuple[str, ...]
    sites: tuple[str, ...]
    dice: tuple[tuple[float, ...], ...]


Curve = tuple[tuple[int, float, float, float], ...]
"""Round, and the mean, lowest and highest validation Dice of the seeds."""


def standing(tested: Entrant) -> Standing:
    """A contestant's row."""
    seeds = sorted({key.seed for key in tested.dice})
    pooled = [estimate(_part(tested.dice, seed)) for seed in seeds]
    sites = [site_means(_part(tested.dice, seed)) for seed in seeds]
    runs = [tested.results[seed] for seed in seeds if seed in tested.results]
    sent = [float(sum(r["bytes_down"] + r["bytes_up"] for one in run for r in one["rounds"])) for run in runs]
    seconds = [float(sum(one["seconds"]["total"] for one in run)) for run in runs]
    return Standing(
        tested.name,
        tested.strategy,
        float(np.mean(pooled)),
        float(np.std(pooled, ddof=1)) if len(pooled) > 1 else None,
        estimate(tested.iou),
        float(np.mean([np.mean(list(one.values())) for one in sites])),
        float(np.mean([min(one.values()) for one in sites])),
        float(np.mean(sent)) if tested.strategy else None,
        float(np.mean(seconds)) if seconds else None,
        tuple(pooled),
    )


def compared(tested: Sequence[Entrant], reference: str, *, crossed: bool) -> list[Difference]:
    """Everyone else against the reference, with Holm's correction over all of them."""
    (base,) = (one for one in tested if one.name == reference)
    pairs = {one.name: differences(one.dice, base.dice) for one in tested if one is not base}
    p = [signed_rank(pair, crossed=crossed) for pair in pairs.values()]
    found = []
    for (name, pair), single, adjusted in zip(pairs.items(), p, holm(p), strict=True):
        bounds, leans = interval(pair, crossed=crossed), leaning(pair, crossed=crossed)
        better, worse = sum(v > 0 for v in pair.values()), sum(v < 0 for v in pair.values())
        same, verdict = len(pair) - better - worse, wording.difference(reference, bounds, adjusted, leans)
        found.append(Difference(name, bounds, single, adjusted, leans, better, worse, same, verdict))
    return found


def best_words(tested: Sequence[Entrant], *, crossed: bool) -> str:
    """Whether a strategy may be called the best: against each other one, at Bonferroni's level for so many."""
    strategies = [one for one in tested if one.strategy]
    leader = max(strategies, key=lambda one: estimate(one.dice))
    rest = [one for one in strategies if one is not leader]
    level = 1 - (1 - LEVEL) / max(1, len(rest))
    pairs = {one.name: differences(leader.dice, one.dice) for one in rest}
    p = holm([signed_rank(pair, crossed=crossed) for pair in pairs.values()])
    bounds = {
        name: (interval(pair, crossed=crossed, level=level), adjusted, leaning(pair, crossed=crossed))
        for (name, pair), adjusted in zip(pairs.items(), p, strict=True)
    }
    return wording.best(leader.name, bounds)


def gains(strategy: Entrant, local: Entrant, *, crossed: bool) -> list[Gain]:
    """Each hospital with the strategy against alone, on its own test images.

    Its images are drawn, and seeds where it is the same hospital in each; no other site is of account.
    """
    pairs = differences(strategy.dice, local.dice)
    hospitals = sorted({(None if crossed else key.seed, key.site) for key in pairs}, key=str)
    own = [
        {key: v for key, v in pairs.items() if key.site == site and seed in (None, key.seed)}
        for seed, site in hospitals
    ]
    p = holm([signed_rank(part, crossed=crossed) for part in own])
    found = []
    for (seed, site), part, adjusted in zip(hospitals, own, p, strict=True):
        alone = estimate({key: local.dice[key] for key in part})
        bounds = interval(part, crossed=crossed)
        verdict = wording.gain(bounds, adjusted, leaning(part, crossed=crossed))
        found.append(Gain(strategy.name, seed, site, len(part), alone, bounds, adjusted, verdict))
    return found


def matrix(models: Mapping[str, Values], *, crossed: bool) -> list[Matrix]:
    """Models on sites: one table, or one a seed where each seed has sites of its own."""
    seeds = sorted({key.seed for values in models.values() for key in values})
    tables = []
    for seed in [None] if crossed else seeds:
        parts = {name: v if seed is None else _part(v, seed) for name, v in models.items()}
        sites = tuple(sorted({key.site for part in parts.values() for key in part}))
        rows = tuple(tuple(_on_site(part, site) for site in sites) for part in parts.values())
        tables.append(Matrix(seed, tuple(parts), sites, rows))
    return tables


def curve(results: Mapping[int, Sequence[Result]]) -> Curve:
    """Validation Dice of a contestant of one run a seed, over the rounds that all seeds have."""
    histories = [runs[0]["rounds"] for runs in results.values()]
    points = []
    for records in zip(*histories, strict=False):
        dice = [record["global_dice"] for record in records if record["global_dice"] is not None]
        if dice:
            points.append((int(records[0]["round"]), float(np.mean(dice)), min(dice), max(dice)))
    return tuple(points)


def site_means(values: Values) -> dict[str, float]:
    """The mean over each site's images."""
    return {site: _on_site(values, site) for site in sorted({key.site for key in values})}


def _on_site(values: Values, site: str) -> float:
    return estimate({key: value for key, value in values.items() if key.site == site})


def _part(values: Values, seed: int) -> dict[Key, float]:
    return {key: value for key, value in values.items() if key.seed == seed}
