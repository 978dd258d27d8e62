"""What a round of a real deployment costs beside training: three sites on this machine, over TLS with keys.

    python bench/deployment.py [--variant base] [--rounds 6] [--codec fp32]

Prints the seconds of each round less those of its slowest site, without the first round, which reads the data; and
the bytes of the run by Flower's own counters, as a multiple of the models that were sent.
"""

import argparse
import json
import sqlite3
import statistics
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from protocol.settings import resolve
from simulation.settings import check_settings
from simulation.sites import make_sites
from tests.deployment.federation import Deployment, fedurwkv

SITES = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", default="base")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--codec", default="fp32")
    words = parser.parse_args()
    study = {
        "data.size": 32,
        "data.images": 10,
        "data.sites": SITES,
        "model.variant": words.variant,
        "federation.rounds": words.rounds,
        "federation.deadline": 600,
        "train.epochs": 1,
        "transfer.codec": words.codec,
        "tracking.uri": "none",
    }
    with tempfile.TemporaryDirectory(prefix="fu-") as folder:
        deployment = Deployment(Path(folder))
        table = resolve(study)
        sites = make_sites(check_settings(table), 0, deployment.folder / "sites")
        deployment.init()
        hospitals = [deployment.hospital(site) for site in sites]
        sets = [word for key, value in study.items() for word in ("--set", f"{key}={value}")]
        with deployment.coordinator(), deployment.sites(hospitals):
            fedurwkv("coordinator", "run", deployment.study, *sets, seconds=1800)
        (run,) = (deployment.study / "runs").iterdir()
        rounds = json.loads((run / "result.json").read_text())["rounds"]
        database = sqlite3.connect(deployment.study / "flower" / "state.db")
        ((down, up),) = database.execute("select bytes_sent, bytes_recv from run").fetchall()
        database.close()
    over = [r["seconds"] - max(site["seconds"] for site in r["sites"].values()) for r in rounds[1:]]
    print("seconds beside training, a round:", " ".join(f"{seconds:.2f}" for seconds in over))
    print(f"median {statistics.median(over):.2f} s, {SITES} sites, {words.variant}, {words.codec}")
    model = rounds[0]["bytes_down"] / SITES
    exchanges = SITES * words.rounds
    closing = 2 * SITES  # models that go down for the closing evaluations
    shares = down / ((exchanges + closing) * model), up / (exchanges * model)
    print(f"down {shares[0]:.4f} and up {shares[1]:.4f} of the model a message")


if __name__ == "__main__":
    main()
