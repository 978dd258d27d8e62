"""Dice against epsilon: from fresh weights and from a model that was pre-trained on another public data set.

For each data set, start, subset of tensors that learn, epsilon and seed one federation of hospitals; `0` is the
pre-trained model as it came, `inf` takes the same clipped steps without noise, `plain` is training as it is without
privacy, of all tensors. Test Dice of the model that is best on the validation images, mean and standard deviation
over the seeds, as a table and as curve.png.

    python bench/privacy.py --out runs/privacy --data ../shared/data [--minutes 8] [--jobs 8] [--set K=V]...

It stops by itself after so many minutes, and the same words go on where it stopped: finished runs are kept, and so is
every round of those that were under way. Runs begin seed by seed, --jobs of them side by side, each in a process of
its own, dealt to the GPUs in turn; a private step launches many small kernels, so a large GPU has room for two or
three. Without --data it tries itself on generated pictures.
"""

import argparse
import json
import math
import signal
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.figure import Figure
from rich.console import Console

from protocol.errors import StoppedError
from protocol.settings import Table, parse_assignment, resolve, section
from simulation.compare.contestants import Job
from simulation.compare.jobs import gpus, place, run_jobs
from simulation.drawing import COLOURS, PRINT, style
from simulation.engines import threads_a_site
from simulation.sites import DataSettings, make_sites

SETS = {"busi": "isic2018", "isic2018": "kvasir"}
"""The data sets, and on which other one their pre-trained start was trained."""

PHANTOMS = "phantoms"
EPSILONS = "0,1,2,4,8,inf,plain"
ZERO, INF, PLAIN = "0", "inf", "plain"
SCRATCH, PRETRAINED = "scratch", "pretrained"
SUBSETS = "all,head_and_norms"

NOISELESS = Path(__file__).with_name("noiseless.py")

COMMON: Table = {
    "data.sites": 2,
    "data.size": 128,
    "model.variant": "base",
    "model.norm": "group",
    "federation.rounds": 5,
    "train.epochs": 8,
    "train.lr": 1e-2,
    "train.batch": 32,
    "privacy.batch": 256,
    "privacy.physical": 128,
    "privacy.clipping": "automatic",
    "tracking.uri": "none",
    "report.overlays": "none",
}
"""Two large hospitals: noise drowns a site's step less, the more patients it has. Few large steps of a high learning
rate, and every patient's gradient of full length: docs/privacy.md has what else was tried."""

OPENLY: Table = {"train.lr": 1e-3}
"""Of steps without privacy, of which there are many."""

UNMOVED: Table = {"federation.rounds": 1, "train.epochs": 1, "train.lr": 1e-12}
"""One round of steps too small for float32: what is scored has learnt nothing from these patients."""

FEW: Table = {"train.lr": 3e-2}
"""Of head and norms, whose noise is of fewer coordinates and so moves the network less."""

PACE: dict[str, Table] = {"isic2018": {"train.epochs": 3}, "kvasir": {"train.epochs": 5}}
"""So that a site of 170 patients (BUSI) and one of 840 (ISIC) take about as many private steps, 40 and 45 in all."""

ALONE: Table = {"data.sites": 1, "federation.quorum": 1}
"""Of the training that a start comes from."""


@dataclass(frozen=True)
class Line:
    """One line of the curve: a data set, the start, and what learns."""

    data: str
    start: str
    subset: str

    @property
    def name(self) -> str:
        return f"{self.data}-{self.start}-{self.subset}"


def lines_of(data: Sequence[str], starts: Sequence[str], subsets: Sequence[str]) -> list[Line]:
    """From fresh weights all must learn; of a pre-trained model a subset may."""
    pairs = [(start, subset) for start in starts for subset in subsets if start == PRETRAINED or subset == "all"]
    return [Line(name, *pair) for name in data for pair in pairs]


class Study:
    """The runs in one folder.

    Args:
        out: the folder.
        root: of the public data sets; empty: phantoms.
        differences: settings that the user has changed.
    """

    def __init__(self, out: Path, root: str, differences: Table) -> None:
        self.out, self.root, self.differences = out, root, differences

    def table(self, data: str, seed: int, *more: Table) -> Table:
        where: Table = {"seed": seed}
        if data != PHANTOMS:
            where |= {"data.root": str(Path(self.root).resolve()), "data.datasets": data}
            where |= {"data.partition": "quantity", "data.spread": 0.0}
        return resolve(COMMON, PACE.get(data, {}), where, *more, self.differences)

    def job(self, name: str, table: Table) -> Job:
        """A run with sites of its own settings and seed, made once for all that share them."""
        words = (f"{table['data.datasets']}-{table['data.sites']}".replace("auto", PHANTOMS), f"seed{table['seed']}")
        folders = make_sites(
            section(table, "data", DataSettings), int(table["seed"]), self.out.joinpath("sites", *words)
        )
        return Job(name, name, int(table["seed"]), "", table, folders[0].parent)

    def pretraining(self, data: str) -> Job:
        """Plain training on the other data set; of phantoms, on those of another seed."""
        other = SETS.get(data, PHANTOMS)
        return self.job(f"pretraining-{other}", self.table(other, 1000, OPENLY) | ALONE)

    def run(self, line: Line, epsilon: str, seed: int) -> Job:
        """The run of one point."""
        own: Table = {"privacy.trainable": line.subset}
        if epsilon == ZERO:
            own |= UNMOVED
        elif epsilon == PLAIN:
            own |= OPENLY
        else:
            own |= FEW if line.subset == "head_and_norms" else {}
            own["privacy.epsilon"] = 8.0 if epsilon == INF else float(epsilon)
        start = self.pretraining(line.data) if line.start == PRETRAINED else None
        if start:
            own["model.start"] = str((place(self.out, start) / "model.safetensors").resolve())
        job = self.job(f"{line.name}-{epsilon}-seed{seed}", self.table(line.data, seed, own))
        return replace(job, after=start.name if start else "", program=NOISELESS if epsilon == INF else None)

    def runs(self, lines: Sequence[Line], epsilons: Sequence[str], seeds: int) -> Iterator[Job]:
        """All runs in their order: a seed after the other, so that what there is when time is up is whole."""
        for data in dict.fromkeys(line.data for line in lines if line.start == PRETRAINED):
            yield self.pretraining(data)
        for seed in range(seeds):
            for line in lines:
                for epsilon in epsilons:
                    if _is_run(line, epsilon):
                        yield self.run(line, epsilon, seed)


def _is_run(line: Line, epsilon: str) -> bool:
    """Whether there is such a point: without privacy all tensors learn, and fresh weights unmoved say nothing."""
    if epsilon == ZERO:
        return line.start == PRETRAINED and line.subset == "all"
    return epsilon != PLAIN or line.subset == "all"


def finish(study: Study, jobs: Sequence[Job], at_once: int) -> dict[str, str]:
    """Run what is left; why some failed."""
    at_once = at_once or max(1, len(gpus(jobs[0].table)))
    shared = [replace(job, table=job.table | {"train.threads": _threads(job.table, at_once)}) for job in jobs]
    return run_jobs(study.out, shared, "local", at_once, Console())


def _threads(table: Table, at_once: int) -> int:
    """CPU threads of a site where so many runs share the machine."""
    return max(1, threads_a_site(table, int(table["data.sites"])) // at_once)


Scores = dict[tuple[str, str], list[float]]
"""Test Dice of each seed, by line and epsilon."""


def scores(study: Study, lines: Sequence[Line], epsilons: Sequence[str], seeds: int) -> Scores:
    """Those of the runs that are finished."""
    found: Scores = {}
    for line in lines:
        for epsilon in epsilons:
            for seed in range(seeds):
                result = study.out / "runs" / f"{line.name}-{epsilon}-seed{seed}" / "result.json"
                if result.is_file():
                    dice = json.loads(result.read_text())["final"]["global_dice"]
                    found.setdefault((line.name, epsilon), []).append(float(dice))
    return found


def cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{spread} ({len(values)})"


def show(found: Scores, lines: Sequence[Line], epsilons: Sequence[str], path: Path) -> None:
    """The table, and the curve as a PNG."""
    print(f"\n| test Dice (runs) | {' | '.join(epsilons)} |\n|---|{'---|' * len(epsilons)}")
    for line in lines:
        print(f"| {line.name} | {' | '.join(cell(found.get((line.name, epsilon), [])) for epsilon in epsilons)} |")
    with style(PRINT):
        data = list(dict.fromkeys(line.data for line in lines))
        figure = Figure((4.2 * len(data), 3.2), layout="constrained")
        for axes, name in zip(figure.subplots(1, len(data), squeeze=False, sharey=True)[0], data, strict=True):
            for colour, line in zip(COLOURS, [line for line in lines if line.data == name], strict=False):
                there = [(x, found[line.name, e]) for x, e in enumerate(epsilons) if (line.name, e) in found]
                if there:
                    middle = [statistics.mean(values) for _, values in there]
                    spread = [statistics.stdev(values) if len(values) > 1 else 0.0 for _, values in there]
                    label = f"{line.start}, {line.subset.replace('_', ' ')}"
                    axes.errorbar([x for x, _ in there], middle, spread, color=colour, label=label, capsize=3)
            axes.set(title=name, xlabel="epsilon", xticks=range(len(epsilons)), xticklabels=epsilons, ylim=(0, 1))
        figure.axes[0].set_ylabel("test Dice")
        if found:
            figure.axes[0].legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", default="", help="folder of the public data sets; empty: phantoms")
    parser.add_argument("--sets", default="", help=f"of: {','.join(SETS)}")
    parser.add_argument("--epsilons", default=EPSILONS)
    parser.add_argument("--starts", default=f"{SCRATCH},{PRETRAINED}")
    parser.add_argument("--subsets", default=SUBSETS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=0, help="runs side by side; one a GPU, or one, when left out")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many; the same words go on")
    parser.add_argument("--set", dest="sets_of", metavar="K=V", action="append", default=[])
    words = parser.parse_args()
    data = (words.sets or ",".join(SETS)).split(",") if words.data else [PHANTOMS]
    lines = lines_of(data, words.starts.split(","), words.subsets.split(","))
    epsilons = words.epsilons.split(",")
    study = Study(words.out, words.data, dict(map(parse_assignment, words.sets_of)))
    if math.isfinite(words.minutes):
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 60 * words.minutes)
    try:
        jobs = list(study.runs(lines, epsilons, words.seeds))
        if not jobs:
            parser.error("these words leave no run: `plain` is of all tensors, and so is `0`, of a pre-trained model")
        for name, reason in finish(study, jobs, words.jobs).items():
            print(f"{name} has no result: {reason}")
    except (StoppedError, KeyboardInterrupt):
        print("time is up; the same words go on")
    signal.setitimer(signal.ITIMER_REAL, 0)
    show(scores(study, lines, epsilons, words.seeds), lines, epsilons, words.out / "curve.png")


if __name__ == "__main__":
    main()
