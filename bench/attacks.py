"""What attacks do to each rule: the test Dice of the honest sites, with one of five sites hostile.

Every rule is run without an attack, and under each attack. The server's gate leaves out what is not finite, and what
moves further than `federation.max_update` times the model's norm; a second table widens the gate, so that the rule
alone stands against the updates that are scaled most (what is not finite never passes). The best model of each run is
chosen as in any run, by the pooled validation Dice that the sites report, the hostile one's too. One run after the
other, each resumable: the same words go on.

    python bench/attacks.py --out runs/attacks [--set K=V]... [--rules A,B] [--attacks A,B]
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console

from protocol.settings import Table, parse_assignment, resolve
from simulation.attacks import AttackSettings, attackers
from simulation.compare.contestants import Job
from simulation.compare.folders import read_shared, share
from simulation.compare.jobs import place, run_jobs

RULES = "fedavg,norm_bounding,median,trimmed_mean,geometric_median,krum,multikrum"
ATTACKS = "none,free_rider,label_flip,sign_flip,scaling:10,scaling:1000,nan"
"""Attacks, of scaling with its factor; the last factor is tried with a wide gate too."""

SITES = 5
WIDE = 1e9
"""A gate that lets any finite update through."""


def jobs_of(base: Table, rule: str, kinds: Sequence[str], gate: float, sites: Path) -> list[Job]:
    """One rule under each attack, with a gate so wide."""
    jobs = []
    for words in kinds:
        kind, _, scale = words.partition(":")
        changed: Table = {"federation.strategy": rule, "federation.max_update": gate, "attack.kind": kind}
        changed |= {"attack.share": 0.0 if kind == "none" else 1 / SITES} | ({"attack.scale": scale} if scale else {})
        name = f"{rule}-{words.replace(':', '')}" + ("-wide" if gate == WIDE else "")
        jobs.append(Job(name, rule, int(base["seed"]), "", resolve(base, changed), sites))
    return jobs


def honest_dice(run: Path, honest: Sequence[str]) -> tuple[float, int]:
    """Test Dice pooled over the honest sites' images, and in how many rounds the gate left an update out."""
    result = json.loads((run / "result.json").read_text())
    images = {site["name"]: site["test"] for site in result["sites"]}
    scores = result["final"]["sites"]
    total = sum(images[name] * scores[name]["dice"] for name in honest)
    left_out = sum(bool(record["failed"]) for record in result["rounds"])
    return total / sum(images[name] for name in honest), left_out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--rules", default=RULES)
    parser.add_argument("--attacks", default=ATTACKS)
    words = parser.parse_args()
    common: Table = {"data.sites": SITES, "tracking.uri": "none", "report.overlays": "none"}
    base = resolve(common, dict(map(parse_assignment, words.sets)))
    rules, kinds = words.rules.split(","), words.attacks.split(",")
    seed = int(base["seed"])
    shared = share(words.out, base, seed, alone=False, pooled=False)
    sites = shared.sites[0].parent
    hostile = attackers(AttackSettings("nan", 1 / SITES, 1.0), shared.names, seed)
    honest = [site for site in read_shared(shared, base) if site.name not in hostile]
    images = sum(len(site.split("test")) for site in honest)
    scaled = [words for words in kinds if words.startswith("scaling")]
    tables = [(float(base["federation.max_update"]), kinds)] + ([(WIDE, scaled[-1:])] if scaled else [])
    for gate, some in tables:
        jobs = {rule: jobs_of(base, rule, some, gate, sites) for rule in rules}
        failed = run_jobs(words.out, [job for own in jobs.values() for job in own], "local", 1, Console(quiet=True))
        print(f"\nfederation.max_update = {gate:g}; hostile: {', '.join(hostile)}; {images} images\n")
        print(f"| rule | {' | '.join(some)} |\n|---|{'---|' * len(some)}")
        for rule, own in jobs.items():
            cells = []
            for job in own:
                if job.name in failed:
                    cells.append("no result")
                    continue
                dice, left_out = honest_dice(place(words.out, job), [site.name for site in honest])
                cells.append(f"{dice:.3f}" + (f" ({left_out} left out)" if left_out else ""))
            print(f"| `{rule}` | {' | '.join(cells)} |", flush=True)
        for name, reason in failed.items():
            print(f"\n{name} has no result: {reason}")


if __name__ == "__main__":
    main()
