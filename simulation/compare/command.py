"""`fedurwkv compare`: from words to runs, and from runs to a page that says what may be said."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from protocol.atomic import write_atomic
from protocol.errors import DataError, RunError, SettingsError, StoppedError
from protocol.lock import hold
from protocol.settings import section
from server.summary import short
from server.tracking import TrackingSettings
from server.tracking_comparison import track_comparison
from simulation.compare.comparison import Comparison, as_csv, as_json, conclude
from simulation.compare.contestants import Job, check_jobs, jobs_of
from simulation.compare.folders import Shared, share
from simulation.compare.gathering import gather
from simulation.compare.jobs import Failures, gpus, place, run_jobs
from simulation.compare.page import comparison_page
from simulation.compare.tuning import Tried, choose_trials, tried
from simulation.compare.wording import spoken
from simulation.compare.words import CENTRAL, FILE, LOCAL, Plan, Trial, Words, plan_of, read_plan, write_plan

TRACKING_SECONDS = 90.0


def compare(words: Words, out: Path | None, resume: bool, at_once: int | None, console: Console) -> Path:
    """Compare strategies and leave the comparison's folder.

    Args:
        words: what the command line says.
        out: the folder; None: `runs/` and a name from scenario and time.
        resume: go on with the comparison in `out`; words given with it change its plan.
        at_once: runs side by side; None: one a GPU, or one.

    Raises:
        FedURWKVError: the words, the data or a folder are wrong, or a run failed; what could be concluded is written.
    """
    plan, folder = _opened(words, out, resume)
    if at_once is not None and at_once < 1:
        raise SettingsError(f"--jobs = {at_once} must be at least 1")
    folder.mkdir(parents=True, exist_ok=True)
    with hold(folder / "lock", f"another process is comparing in {folder}"):
        try:
            return _compare(plan, folder, at_once, console)
        except KeyboardInterrupt:
            raise _stopped(folder) from None
        except StoppedError:
            raise _stopped(folder) from None


def _opened(words: Words, out: Path | None, resume: bool) -> tuple[Plan, Path]:
    """The plan and the folder; nothing is written yet."""
    if resume and out is None:
        raise SettingsError("--resume needs the comparison's folder: --out runs/NAME")
    plan = plan_of(words, read_plan(out) if resume and out else None)
    if plan.table["data.root"]:
        root = Path(str(plan.table["data.root"])).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"data.root = {root} is no folder: name one with sites, images or data sets")
        plan = replace(plan, table={**plan.table, "data.root": str(root)})
    name = words.scenario.stem if words.scenario else "phantoms"
    folder = (out or Path("runs") / f"compare-{name}-{time.strftime('%Y%m%d-%H%M%S')}").resolve()
    if not resume and (folder / FILE).is_file():
        raise RunError(f"{folder} already holds a comparison; go on with it by --resume, or choose another --out")
    return plan, folder


def _compare(plan: Plan, folder: Path, at_once: int | None, console: Console) -> Path:
    console.print(f"comparison {short(folder)}", highlight=False, markup=False, soft_wrap=True)
    check_jobs(plan, _planned(plan, [], folder), {})  # what can be known before there are sites
    with console.status("making the sites"):
        seeds = [_share(plan, folder, seed) for seed in plan.all_seeds]
    check_jobs(plan, _planned(plan, seeds, folder), {shared.seed: len(shared.sites) for shared in seeds})
    write_plan(folder, plan)
    side_by_side = at_once or max(1, len(gpus(plan.table)))
    failed, found, chosen = _tune(plan, folder, seeds, side_by_side, console)
    jobs = _chosen_jobs(plan, seeds, chosen, folder)
    failed |= run_jobs(folder, [job for own in _by_seed(jobs) for job in own], plan.engine, side_by_side, console)
    with console.status("scoring every image and drawing samples"):
        left = gather(folder, plan, seeds, jobs, failed)
        comparison = conclude(plan, left, found, chosen, failed)
        _write(folder, comparison)
    with console.status("MLflow catches up"):
        settings = section(plan.table, "tracking", TrackingSettings)
        runs = [place(folder, job) for own in jobs.values() for job in own]
        tracked = track_comparison(folder, runs, settings, TRACKING_SECONDS)
    _show(folder, comparison, tracked, console)
    if failed:
        names = "; ".join(f"{name}: {reason}" for name, reason in failed.items())
        raise RunError(f"{len(failed)} runs failed ({names}); to try again: {resume_command(folder)}")
    return folder


def _share(plan: Plan, folder: Path, seed: int) -> Shared:
    return share(folder, plan.table, seed, alone=LOCAL in plan.trained, pooled=CENTRAL in plan.trained)


def _planned(plan: Plan, seeds: Sequence[Shared], folder: Path) -> list[Job]:
    """Every run that the plan may come to, with each trial on the first seed; without sites, one of each kind."""
    unknown = Shared(int(plan.table["seed"]), (folder / "sites" / "site",), False, {"site": folder}, folder)
    return [
        job
        for name in plan.trained
        for shared in seeds or [unknown]
        for trial in plan.trials
        for job in jobs_of(plan, name, shared, trial, folder)
    ]


def _tune(
    plan: Plan, folder: Path, seeds: Sequence[Shared], at_once: int, console: Console
) -> tuple[Failures, list[Tried], dict[str, Trial]]:
    """Run all trials; the failed runs, what each trial came to, and each contestant's choice."""
    if not plan.tune:
        return {}, [], {name: {} for name in plan.trained}
    trials = {
        name: [(trial, jobs_of(plan, name, seeds[0], trial, folder)) for trial in plan.trials]
        for name in plan.trained
    }
    jobs = [job for own in trials.values() for _, runs in own for job in runs]
    console.print(f"tuning: {len(plan.trials)} trials for each of {len(plan.trained)}", highlight=False)
    failed = run_jobs(folder, jobs, plan.engine, at_once, console)
    found = [one for name, own in trials.items() for one in tried(folder, name, own)]
    chosen = dict(choose_trials(found))
    for name, trial in chosen.items():
        words = ", ".join(f"{key}={value}" for key, value in trial.items())
        console.print(f"{name}: {words}", highlight=False, markup=False)
    lost = {job.name for name, own in trials.items() if name not in chosen for _, runs in own for job in runs}
    return {name: reason for name, reason in failed.items() if name in lost}, found, chosen


def _chosen_jobs(plan: Plan, seeds: Sequence[Shared], chosen: dict[str, Trial], folder: Path) -> dict[str, list[Job]]:
    """The runs of the comparison; a contestant whose trials all failed has none."""
    return {
        name: [job for shared in seeds for job in jobs_of(plan, name, shared, chosen[name], folder)]
        for name in plan.trained
        if name in chosen
    }


def _by_seed(jobs: dict[str, list[Job]]) -> list[list[Job]]:
    """One seed after the other, so that the first one is soon complete."""
    everything = [job for own in jobs.values() for job in own]
    return [[job for job in everything if job.seed == seed] for seed in sorted({job.seed for job in everything})]


def _write(folder: Path, comparison: Comparison) -> None:
    for name, content in (
        ("compare.csv", as_csv(comparison)),
        ("compare.html", comparison_page(folder.name, comparison)),
        ("compare.json", as_json(comparison)),
    ):
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != content:
            write_atomic(path, content)


def _show(folder: Path, found: Comparison, tracked: str, console: Console) -> None:
    heads = ("", "Dice", "± seeds", "worst site", f"against {found.reference} (95 %)", "p, Holm")
    table = RichTable(
        title="test images, means over seeds",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index else "left", no_wrap=True)
    differences = {one.name: one for one in found.differences}
    for one in found.standings:
        deviation = "-" if one.deviation is None else f"{one.deviation:.3f}"
        words = ["", ""]
        if (other := differences.get(one.name)) is not None:
            words = [spoken(other.interval), f"{other.p_holm:.2g}"]
        table.add_row(one.name, f"{one.dice:.3f}", deviation, f"{one.worst_site:.3f}", *words)
    console.print(table)
    gains = [found.gain_words[found.reference]] if found.gain_words else []
    lines = [found.best, *gains, f"page  {short(folder / 'compare.html')}", tracked]
    for line in lines:
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def _stopped(folder: Path) -> StoppedError:
    return StoppedError(f"stopped; every finished round is kept; go on with: {resume_command(folder)}")


def resume_command(folder: Path) -> str:
    """The words that go on with a comparison."""
    return f"fedurwkv compare --resume --out {shlex.quote(short(folder))}"
