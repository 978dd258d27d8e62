"""A finished comparison: everything that compare.json, compare.csv and the page say."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from protocol.settings import Table
from simulation.compare import findings, wording
from simulation.compare.findings import Curve, Difference, Entrant, Gain, Matrix, Standing
from simulation.compare.statistics import DRAWS, Values
from simulation.compare.tuning import Tried
from simulation.compare.words import CENTRAL, ENSEMBLE, LOCAL, Plan, Trial

SCHEMA = 1


@dataclass(frozen=True)
class Comparison:
    """The content of compare.json.

    Attributes:
        schema: of this file.
        reference: the strategy that the others are compared with.
        seeds: of which every contestant in the tables has finished all.
        crossed: whether a site is the same hospital in every seed.
        device: what the runs computed on.
        settings: what all runs share; `own` what contestants have to themselves.
        standings: a row a contestant, the highest test Dice first.
        differences: everyone else against the reference.
        best: whether a strategy may be called the best, in words.
        gains: for each strategy every hospital against its own model alone.
        gain_words: what that comes to, in words.
        curves: validation Dice by round.
        matrices: models on sites.
        tried: the trials of tuning; `chosen` the one that each contestant kept.
        failed: why runs did not finish.
        limits: what may not be concluded, in words.
        draws: samples of each bootstrap.
    """

    schema: int
    reference: str
    seeds: tuple[int, ...]
    crossed: bool
    device: str
    settings: Table
    own: Mapping[str, Table]
    standings: Sequence[Standing]
    differences: Sequence[Difference]
    best: str
    gains: Mapping[str, Sequence[Gain]]
    gain_words: Mapping[str, str]
    curves: Mapping[str, Curve]
    matrices: Sequence[Matrix]
    tried: Sequence[Tried]
    chosen: Mapping[str, Trial]
    failed: Mapping[str, str]
    limits: Sequence[str]
    draws: int = DRAWS


@dataclass(frozen=True)
class Gathered:
    """What the runs of a comparison have left.

    Attributes:
        tested: the contestants of which every run has finished, the reference among them.
        alone: Dice of each site's own model on all sites, by the site's name; empty without local models.
        crossed: whether a site is the same hospital in every seed.
        notes: what a reader must know about how the scores came to be.
    """

    tested: Sequence[Entrant]
    alone: Mapping[str, Values]
    crossed: bool
    notes: Sequence[str]


def conclude(
    plan: Plan, left: Gathered, tried: Sequence[Tried], chosen: Mapping[str, Trial], failed: Mapping[str, str]
) -> Comparison:
    """All numbers and words of a comparison."""
    by_name = {one.name: one for one in left.tested}
    strategies = [one for one in left.tested if one.strategy]
    crossed = left.crossed
    gains: dict[str, list[Gain]] = {}
    if LOCAL in by_name:
        gains = {one.name: findings.gains(one, by_name[LOCAL], crossed=crossed) for one in strategies}
    standings = sorted((findings.standing(one) for one in left.tested), key=lambda one: (-one.dice, one.name))
    drawn = [one for one in left.tested if one.strategy or one.name == CENTRAL]
    device = next(runs[0]["device"] for runs in strategies[0].results.values())
    return Comparison(
        schema=SCHEMA,
        reference=plan.reference,
        seeds=tuple(plan.all_seeds),
        crossed=crossed,
        device=str(device),
        settings={key: value for key, value in plan.table.items() if key not in ("federation.strategy", "overrides")},
        own=plan.own,
        standings=standings,
        differences=findings.compared(left.tested, plan.reference, crossed=crossed),
        best=findings.best_words(left.tested, crossed=crossed),
        gains=gains,
        gain_words={name: wording.gains(name, [one.verdict for one in found]) for name, found in gains.items()},
        curves={one.name: findings.curve(one.results) for one in drawn},
        matrices=_matrices(by_name, left.alone, plan.reference, crossed=crossed),
        tried=tried,
        chosen=chosen,
        failed=failed,
        limits=[*_limits(plan, left.tested, crossed=crossed), *left.notes],
    )


def _matrices(
    tested: Mapping[str, Entrant], alone: Mapping[str, Values], reference: str, *, crossed: bool
) -> list[Matrix]:
    if not alone:
        return []
    others = [name for name in (ENSEMBLE, reference, CENTRAL) if name in tested]
    models = {f"{site} alone": values for site, values in alone.items()}
    return findings.matrix(models | {name: tested[name].dice for name in others}, crossed=crossed)


def _limits(plan: Plan, tested: Sequence[Entrant], *, crossed: bool) -> list[str]:
    keys = list(tested[0].dice)
    sites = len({key.site for key in keys if key.seed == keys[0].seed})
    lines = [wording.few(sites, plan.seeds, crossed=crossed)]
    lines.append(
        "The sites are pretend hospitals or a choice of hospitals: the intervals speak of hospitals like these and of"
        " the settings of this comparison, not of hospitals in general."
    )
    lines.append(
        "The signed ranks take images for independent; images of one hospital are not quite. So a difference is"
        " called one only where the interval agrees."
    )
    lines.append("An interval that holds zero shows no difference. It does not show that two contestants are equal.")
    if plan.table["attack.kind"] != "none":
        lines.append(
            f"Sites attacked on purpose ({plan.table['attack.kind']}): every score here includes their test images,"
            " by their true masks."
        )
    return lines


def as_json(found: Comparison) -> str:
    """compare.json."""
    return json.dumps(asdict(found), indent=1)


def as_csv(found: Comparison) -> str:
    """compare.csv: a line a contestant, with its difference from the reference."""
    differences = {one.name: one for one in found.differences}
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for one in found.standings:
        row: dict[str, Any] = {key: value for key, value in asdict(one).items() if key in CSV_COLUMNS}
        if (other := differences.get(one.name)) is not None:
            bounds = other.interval
            row |= {"difference": bounds.estimate, "low": bounds.low, "high": bounds.high}
            row |= {"p": other.p, "p_holm": other.p_holm, "verdict": other.verdict}
        writer.writerow(row)
    return text.getvalue()


CSV_COLUMNS = (
    *("name", "strategy", "dice", "deviation", "iou", "site_mean", "worst_site", "bytes", "seconds"),
    *("difference", "low", "high", "p", "p_holm", "verdict"),
)
