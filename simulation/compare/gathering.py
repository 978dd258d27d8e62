"""From finished runs to what they have left: the scores of their models, seed by seed."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from protocol.errors import RunError
from simulation.compare.comparison import Gathered
from simulation.compare.contestants import Job
from simulation.compare.findings import Entrant
from simulation.compare.folders import Shared, read_shared, same_hospitals
from simulation.compare.jobs import Failures, place
from simulation.compare.scores import Score, Scorer
from simulation.compare.statistics import Key
from simulation.compare.words import ENSEMBLE, LOCAL, Plan

TOLERANCE = 0.005
"""How far a site's mean Dice may be from what the run itself found: another device rounds otherwise."""


def gather(
    folder: Path, plan: Plan, seeds: Sequence[Shared], jobs: Mapping[str, Sequence[Job]], failed: Failures
) -> Gathered:
    """The scores of every contestant whose runs have all finished.

    Args:
        jobs: the runs of each contestant that trains, of all seeds.
        failed: why runs did not finish.

    Raises:
        RunError: the reference has not finished, or runs of one seed did not have the same sites.
    """
    finished = {name: own for name, own in jobs.items() if all(_is_over(folder, job) for job in own)}
    if plan.reference not in finished:
        why = "; ".join(
            f"{name}: {reason}" for name, reason in failed.items() if name.startswith(f"{plan.reference}-")
        )
        raise RunError(
            f"{plan.reference} has not finished, and the others are compared with it ({why}); mend it and go on with"
            " --resume"
        )
    _check_same_sites(folder, plan, finished)
    scores: dict[str, dict[Key, Score]] = {name: {} for name in finished}
    alone: dict[str, dict[Key, float]] = {}
    ensemble: dict[Key, Score] = {}
    notes: list[str] = []
    for shared in seeds:
        tester = Scorer(read_shared(shared, plan.table), plan.table)
        for name, own in finished.items():
            for job in (job for job in own if job.seed == shared.seed):
                found = dict(_keyed(shared.seed, tester.run(place(folder, job))))
                notes += disagreement(place(folder, job), found)
                if name == LOCAL:
                    alone.setdefault(job.site, {}).update({key: score.dice for key, score in found.items()})
                    found = {key: score for key, score in found.items() if key.site == job.site}
                scores[name].update(found)
        if ENSEMBLE in plan.baselines and LOCAL in finished:
            members = [job for job in finished[LOCAL] if job.seed == shared.seed]
            runs = [place(folder, job) for job in members]
            ensemble.update(_keyed(shared.seed, tester.ensemble(runs, ensemble_scores(folder, members[0]))))
    tested = [_tested(folder, name, name in plan.strategies, scores[name], jobs[name]) for name in finished]
    if LOCAL not in plan.baselines:
        tested = [one for one in tested if one.name != LOCAL]
    if ensemble:
        tested.append(_tested(folder, ENSEMBLE, False, ensemble, []))
    return Gathered(tested, alone, len(seeds) == 1 or same_hospitals(seeds, plan.table), notes)


def ensemble_scores(folder: Path, member: Job) -> Path:
    """Where the scores of the ensemble with this local model are kept: other trials make another ensemble."""
    which = member.name.removeprefix(f"{LOCAL}-{member.site}-")
    return folder / "ensemble" / f"{which}.csv"


def _is_over(folder: Path, job: Job) -> bool:
    return (place(folder, job) / "result.json").is_file()


def _keyed(seed: int, scores: Sequence[Score]) -> Iterator[tuple[Key, Score]]:
    for score in scores:
        yield Key(seed, score.site, score.image), score


def _tested(folder: Path, name: str, strategy: bool, scores: Mapping[Key, Score], jobs: Sequence[Job]) -> Entrant:
    results: dict[int, list[dict[str, Any]]] = {}
    for job in jobs:
        results.setdefault(job.seed, []).append(_result(place(folder, job)))
    dice = {key: score.dice for key, score in scores.items()}
    return Entrant(name, strategy, dice, {key: score.iou for key, score in scores.items()}, results)


def _result(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def _check_same_sites(folder: Path, plan: Plan, finished: Mapping[str, Sequence[Job]]) -> None:
    """RunError unless all strategies of a seed had the same sites and splits."""
    first: dict[int, tuple[str, Any]] = {}
    for name in plan.strategies:
        for job in finished.get(name, ()):
            sites = _result(place(folder, job))["sites"]
            other, before = first.setdefault(job.seed, (job.name, sites))
            if sites != before:
                raise RunError(f"{job.name} and {other} did not have the same sites: compare into another --out")


def disagreement(run: Path, scores: Mapping[Key, Score]) -> list[str]:
    """A line when the scores of the saved model are not those that the run itself found at its end.

    Sites with flipped labels are passed over: they found theirs on flipped masks, these are of the true ones.
    """
    result, worst = _result(run), 0.0
    attack = result.get("attack", {"kind": "none"})
    flipped = attack["sites"] if attack["kind"] == "label_flip" else ()
    for site, final in result["final"]["sites"].items():
        own = [score.dice for key, score in scores.items() if key.site == site]
        if own and site not in flipped:
            worst = max(worst, abs(sum(own) / len(own) - final["dice"]))
    if worst <= TOLERANCE:
        return []
    return [f"{run.name}: the saved model's Dice at a site is {worst:.3f} off what the run found at its end."]
