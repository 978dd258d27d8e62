"""Dice against epsilon: from fresh weights and from a model that was pre-trained on another public data set.

For each data set, start, subset of tensors that learn, epsilon and seed one federation of hospitals; `inf` takes the
same clipped steps without noise, `plain` is training as it is without privacy, of all tensors. Test Dice of the model
that is best on the validation images, mean and standard deviation over the seeds, as a table and as curve.png.

    python bench/privacy.py --out runs/privacy --data ../shared/data [--minutes 8] [--set K=V]...

It stops by itself after so many minutes, and the same words go on where it stopped: finished runs are kept, and so is
every round of the one that was under way. Without --data it tries itself on generated pictures.
"""

import argparse
import contextlib
import json
import math
import signal
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from matplotlib.figure import Figure
from rich.console import Console

from client.privacy import phase
from client.privacy.plan import Plan
from protocol.errors import StoppedError
from protocol.settings import Table, parse_assignment, resolve, section
from simulation.compare.contestants import Job
from simulation.compare.jobs import place, run_jobs
from simulation.drawing import COLOURS, PRINT, style
from simulation.sites import DataSettings, make_sites

SETS = {"busi": "isic2018", "isic2018": "kvasir"}
"""The data sets, and on which other one their pre-trained start was trained."""

PHANTOMS = "phantoms"
EPSILONS = "1,2,4,8,inf,plain"
INF, PLAIN = "inf", "plain"
SCRATCH, PRETRAINED = "scratch", "pretrained"
SUBSETS = "all,decoder,head_and_norms"

COMMON: Table = {
    "data.sites": 2,
    "data.size": 256,
    "model.variant": "base",
    "model.norm": "group",
    "federation.rounds": 10,
    "train.epochs": 4,
    "train.lr": 1e-3,
    "train.batch": 16,
    "privacy.batch": 128,
    "tracking.uri": "none",
    "report.overlays": "none",
}
"""Two large hospitals: noise drowns a site's step less, the more patients it has."""

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
        return resolve(COMMON, where, *more, self.differences)

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
        return self.job(f"pretraining-{other}", self.table(other, 1000) | ALONE)

    def run(self, line: Line, epsilon: str, seed: int) -> Job:
        """The run of one point."""
        own: Table = {"privacy.trainable": line.subset}
        if epsilon != PLAIN:
            own["privacy.epsilon"] = 8.0 if epsilon == INF else float(epsilon)
        if line.start == PRETRAINED:
            own["model.start"] = str((place(self.out, self.pretraining(line.data)) / "model.safetensors").resolve())
        return self.job(f"{line.name}-{epsilon}-seed{seed}", self.table(line.data, seed, own))


@contextlib.contextmanager
def noiseless(switch: bool) -> Iterator[None]:
    """Inside, the steps of a private run get no noise, whatever its ledger says: for pictures that are public."""
    private_phase: Callable[..., Any] = phase.private_phase

    def quiet(model: Any, images: Any, units: Any, plan: Plan, **words: Any) -> Any:
        return private_phase(model, images, units, replace(plan, noise=0.0), **words)

    if switch:
        phase.private_phase = quiet
    try:
        yield
    finally:
        phase.private_phase = private_phase


def finish(study: Study, lines: Sequence[Line], epsilons: Sequence[str], seeds: int) -> dict[str, str]:
    """Run what is left: a seed after the other, so that what there is when time is up is whole; why some failed."""
    console, failed = Console(), {}
    if any(line.start == PRETRAINED for line in lines):
        for data in dict.fromkeys(line.data for line in lines):
            failed |= run_jobs(study.out, [study.pretraining(data)], "local", 1, console)
    for seed in range(seeds):
        for line in lines:
            for epsilon in epsilons:
                if epsilon == PLAIN and line.subset != "all":
                    continue
                with noiseless(epsilon == INF):
                    failed |= run_jobs(study.out, [study.run(line, epsilon, seed)], "local", 1, console)
    return failed


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
        for name, reason in finish(study, lines, epsilons, words.seeds).items():
            print(f"{name} has no result: {reason}")
    except (StoppedError, KeyboardInterrupt):
        print("time is up; the same words go on")
    signal.setitimer(signal.ITIMER_REAL, 0)
    show(scores(study, lines, epsilons, words.seeds), lines, epsilons, words.out / "curve.png")


if __name__ == "__main__":
    main()
