"""What int8 deltas cost in Dice: pairs of simulated runs, alike but for `transfer.codec`.

    python bench/codec.py [--codec int8] [--seeds 8] [--set KEY=VALUE ...]

Prints a row a seed, and the mean of the paired differences of the pooled test Dice with its standard error: seeds
differ in data, weights and order, a pair in rounding alone. Runs that are done lie in --out and are not done again.
"""

import argparse
import json
import math
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from simulation.simulate import simulate

EXACT = "fp32"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--codec", default="int8")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE")
    parser.add_argument("--out", type=Path, default=Path("runs/codec"))
    words = parser.parse_args()
    differences = []
    print(f"{'seed':>4}  {EXACT:>7}  {words.codec:>7}  {'difference':>10}", flush=True)
    for seed in range(words.seeds):
        exact, rounded = (_dice(words.out, codec, seed, words.sets) for codec in (EXACT, words.codec))
        differences.append(rounded - exact)
        print(f"{seed:>4}  {exact:>7.4f}  {rounded:>7.4f}  {rounded - exact:>+10.4f}", flush=True)
    error = statistics.stdev(differences) / math.sqrt(len(differences)) if len(differences) > 1 else math.nan
    print(f"mean difference {statistics.mean(differences):+.4f}, standard error {error:.4f}, {words.seeds} seeds")


def _dice(out: Path, codec: str, seed: int, sets: list[str]) -> float:
    """The pooled test Dice of the best model of one run, which is run unless it is done."""
    folder = out / f"{codec}-{seed}"
    if not (folder / "result.json").is_file():
        own = ["tracking.uri=none", "report.overlays=none", f"seed={seed}", f"transfer.codec={codec}"]
        simulate(None, "local", [*sets, *own], folder, folder.exists(), Console(quiet=True))
    return float(json.loads((folder / "result.json").read_text())["final"]["global_dice"])


if __name__ == "__main__":
    main()
