"""The same number of trials for everyone, judged on the first seed's validation images; no test score is read.

A trial is an ordinary run on the first seed. The chosen one is that seed's run of the comparison, so nothing is
trained twice.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from simulation.compare.contestants import Job
from simulation.compare.jobs import place
from simulation.compare.words import Trial


@dataclass(frozen=True)
class Tried:
    """One trial of one contestant, and its pooled validation Dice; None when a run of it failed."""

    contestant: str
    trial: Trial
    dice: float | None


def tried(folder: Path, contestant: str, trials: Sequence[tuple[Trial, Sequence[Job]]]) -> list[Tried]:
    """What each trial of a contestant came to, from the runs that are finished."""
    return [Tried(contestant, trial, validation_dice([place(folder, job) for job in jobs])) for trial, jobs in trials]


def validation_dice(runs: Sequence[Path]) -> float | None:
    """The validation Dice of the best round of each run, averaged over their images; None when a run is missing."""
    total, images = 0.0, 0
    for run in runs:
        if not (run / "result.json").is_file():
            return None
        result = json.loads((run / "result.json").read_text())
        count = sum(site["val"] for site in result["sites"])
        total += count * float(result["rounds"][result["final"]["best_round"] - 1]["global_dice"])
        images += count
    return total / images


def choose_trials(found: Sequence[Tried]) -> Mapping[str, Trial]:
    """The best trial of each contestant; of equals the first; none for a contestant whose trials all failed."""
    best: dict[str, Tried] = {}
    for one in found:
        if one.dice is None:
            continue
        before = best.get(one.contestant)
        if before is None or before.dice is None or one.dice > before.dice:
            best[one.contestant] = one
    return {name: one.trial for name, one in best.items()}
