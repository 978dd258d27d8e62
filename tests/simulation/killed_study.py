"""A private study, server and sites in one process, killed at random moments and resumed until it is done.

    python -m tests.simulation.killed_study FOLDER KILLS

After every kill each ledger is held against what its site has released by then: the replies that the server counted,
and those that lie in the site's outbox. A study that reached its end has the weights of one that was never killed and
paid for each round once. Prints one JSON object.
"""

import importlib
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors import safe_open

from client.privacy.chain import LINES
from client.privacy.ledger import Entry, Ledger
from protocol.settings import Table
from server.journal import holds_checkpoint, read_state
from tests.client.phantoms import small_sites
from tests.simulation.studies import run, tiny, weights
from tests.victims import Tell, victim

ROUNDS = 3


def entries_of(out: Path) -> dict[str, list[Entry]]:
    """The ledger of each site that has opened one."""
    opened = [path.parent for path in out.glob(f"state/*/privacy/{LINES}")]
    return {folder.parent.name: Ledger(folder).entries() for folder in opened}


def released(out: Path) -> set[tuple[str, int]]:
    """Site and round of every update that left its trainer, or stands ready to."""
    found = set()
    if holds_checkpoint(out):
        for record in read_state(out)["history"]:
            found |= {
                (site, record["round"]) for site, told in record["sites"].items() if told["epsilon"] is not None
            }
    for path in out.glob("state/*/reply-*.safetensors"):
        with safe_open(path, framework="np") as file:
            words = json.loads(file.metadata()["fedurwkv-reply"])
        assert words["scalars"]["epsilon"] > 0
        found.add((path.parent.name, int(path.stem.removeprefix("reply-"))))
    return found


def check(out: Path) -> None:
    """What was released was paid for."""
    entries = entries_of(out)
    for site, number in released(out):
        paid = [entry.request.round for entry in entries[site]]
        assert number in paid, f"{site} released round {number}, and paid for {paid}"


def import_what_training_imports() -> None:
    """Else most of a study's seconds would go to that, and most of the kills."""
    for name in ("client.augment", "client.privacy.phase", "opacus.accountants.utils"):
        importlib.import_module(name)


def main() -> None:
    import_what_training_imports()
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    chance = random.Random(0)
    table: Table = tiny(
        "fedavg",
        privacy_epsilon=4.0,
        privacy_batch=3,
        privacy_accountant="rdp",
        data_sites=2,
        federation_rounds=ROUNDS,
        train_threads=1,
    )
    sites = small_sites(folder, table)

    def study(out: Path) -> float:
        """Run it, or go on with it, in a process of its own; how long it took."""
        began = time.perf_counter()
        victim(lambda tell: _study(out, table, sites, tell))
        return time.perf_counter() - began

    whole = study(folder / "whole")
    expected = weights(folder / "whole")
    landed: Counter[int] = Counter()
    finished = number = 0
    while landed.total() < kills:
        number += 1
        out = folder / f"s{number}"
        killed = True
        while killed:
            after = chance.uniform(0, whole) if landed.total() < kills else 1e9
            _, killed = victim(lambda tell, out=out: _study(out, table, sites, tell), "begins" * (after < 1e9), after)
            check(out)
            if killed:
                landed[read_state(out)["round"] if holds_checkpoint(out) else 0] += 1
        assert weights(out) == expected
        for site, entries in entries_of(out).items():
            rounds = [entry.request.round for entry in entries]
            assert rounds == list(range(1, ROUNDS + 1)), f"{site} paid for rounds {rounds}"
        finished += 1
    print(json.dumps({"kills_by_rounds_on_disk": landed, "finished": finished}))


def _study(out: Path, table: Table, sites: list[Path], tell: Tell) -> None:
    tell("begins")
    run(out, table, sites, resume=out.exists())


if __name__ == "__main__":
    main()
