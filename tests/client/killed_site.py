"""A real site's private trainer, killed in each phase of a round; after every kill its ledger is held against it.

    python -m tests.client.killed_site FOLDER KILLS

A server goes on asking for the rounds of a study until it is done or refused for want of budget, then for those of
the next. Each answer is a process of its own, which is killed after a random part of the phase whose turn it is. It
tells when a noisy walk begins, when noise for scores is about to be drawn, and what it sent. Then at any time:

    walks begun <= rounds paid for, draws begun <= scores paid for, and each is paid for under its own round

Prints one JSON object: the kills by phase, what was begun, sent and paid.
"""

import hashlib
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from client import trainer as trainer_module
from client.gatekeeper import Gatekeeper
from client.outbox import Outbox
from client.privacy import phase
from client.privacy.accounting import rdp_epsilon
from client.privacy.ledger import Entry, Ledger
from client.privacy.policy import Policy, read_policy
from client.privacy.private_site import PrivateSite
from client.privacy.randomness import Randomness
from client.trainer import Trainer
from protocol.errors import BudgetError
from protocol.messages import EVALUATE, TRAIN, Reply, Task
from protocol.packing import Schema
from protocol.settings import Table
from server.app import initial_model
from tests.client.phantoms import small, small_sites
from tests.victims import Tell, telling, victim

EPSILON = 4.0
YAML = f"""\
privacy: {{unit: patient, epsilon_study: {EPSILON}, epsilon_all: 1e9, delta: 1e-5, batch: 2, patients: 2, images: 2}}
allow:
  strategies: any
  scalars: any
  decimals: 6
  code: any
  settings: any
  noised: val.dice, val.loss
  noise: 8
  loss_bound: 2
"""
PHASES = ("start", "admit", "evaluate", "pay scores", "draw", "pay", "walk", "keep", "send")
ROUNDS = 4


class Site:
    """One site with its policy and ledger, whose trainers are processes."""

    def __init__(self, folder: Path) -> None:
        self.table: Table = small(
            privacy_epsilon=EPSILON,
            privacy_batch=3,
            privacy_accountant="rdp",
            data_size=16,
            federation_rounds=ROUNDS,
            train_epochs=2,
        )
        (self.folder, _) = small_sites(folder, self.table)
        (self.folder / "site.yaml").write_text(YAML)
        self.policy: Policy = read_policy(self.folder)
        self.ledger = Ledger(self.folder / "privacy")
        self.ledger.open()
        self.states = folder / "states"
        x = initial_model(self.table)
        self.schema = Schema.like(x)
        self.model = self.schema.pack(x)

    def answer(self, task: Task, tell: Tell) -> None:
        """What a trainer's process does; it ends with the reply, or with what the policy says."""
        named = f"{task.kind}/{task.study}/{task.round}"
        tell("start")
        Gatekeeper.admit = telling(Gatekeeper.admit, "admit", tell)
        trainer_module.evaluate = telling(trainer_module.evaluate, "evaluate", tell)
        PrivateSite.scores = telling(PrivateSite.scores, "pay scores", tell)
        PrivateSite.randomness = _telling_draws(PrivateSite.randomness, named, tell)
        PrivateSite.pay = telling(PrivateSite.pay, "pay", tell)
        phase.private_phase = telling(telling(phase.private_phase, "walk", tell), f"begun {named}", tell)
        Outbox.keep = telling(Outbox.keep, "keep", tell)
        own = Trainer(self.folder, self.table, self.policy, state=self.states / task.study)
        try:
            reply = own.answer(task)
        except BudgetError:
            tell("refused")
            return
        tell("send")
        tell(f"sent {named} {_digest(reply)}")
        (self.states / f"{task.study}-{task.kind}-{task.round}").write_bytes(reply.model)

    def tasks(self, study: str) -> Iterator[Task]:
        """The rounds of a study, each from the model that the last one's reply left, and the closing evaluation."""
        model = self.model
        for number in range(1, ROUNDS + 1):
            yield Task(TRAIN, number, self.schema.hash, model, study=study, accepted=number - 1)
            model = (self.states / f"{study}-{TRAIN}-{number}").read_bytes()
        yield Task(EVALUATE, ROUNDS, self.schema.hash, model, study=study, accepted=ROUNDS)


def _telling_draws(
    function: Callable[..., Randomness], named: str, tell: Tell
) -> Callable[[PrivateSite, int, str], Randomness]:
    def told(self: PrivateSite, number: int, what: str = "privacy") -> Randomness:
        if what != "privacy":
            tell("draw")
            tell(f"drawn {named}")
        return function(self, number, what)

    return told


def _digest(reply: Reply) -> str:
    """Of what noise went into."""
    scores = [reply.scalars.get(name, 0.0) for name in ("val.dice", "val.loss")]
    return hashlib.sha256(json.dumps(scores).encode() + reply.model).hexdigest()


def check(site: Site, told: Counter[str], sent: dict[str, set[str]]) -> list[Entry]:
    """Hold the ledger against all that was told so far; its entries."""
    entries = site.ledger.entries()
    paid: Counter[str] = Counter()
    for entry in entries:
        scores = "scores of val" in entry.request.words
        paid[f"{'drawn' if scores else 'begun'} {entry.request.study}/{entry.request.round}"] += 1
    used: Counter[str] = Counter()
    for word, count in told.items():
        what, named = word.split(" ")
        used[f"{what} {named.partition('/')[2]}"] += count
    for what, count in used.items():
        assert count <= paid[what], f"{what}: {count} times, {paid[what]} paid for"
    for named, digests in sent.items():
        kind = named.partition("/")[0]
        if kind == TRAIN:  # the same noise is sent twice, other noise is paid for
            assert len(digests) <= paid[f"begun {named.partition('/')[2]}"]
        assert len(digests) <= paid[f"drawn {named.partition('/')[2]}"]
    for study in {entry.request.study for entry in entries}:
        own = [entry.charge for entry in entries if entry.request.study == study]
        assert rdp_epsilon(own, 1e-5) <= EPSILON
    return entries


def main() -> None:
    folder, kills = Path(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    chance = random.Random(0)
    site = Site(folder)
    landed: Counter[str] = Counter()
    told: Counter[str] = Counter()
    sent: dict[str, set[str]] = {}
    lengths = measured(site)
    finished = refused = number = 0
    while landed.total() < kills:
        number += 1
        for task in site.tasks(f"s{number}"):
            done = killed = False
            while not done:
                more = not killed and landed.total() < kills  # whoever was killed is left alone the next time
                when = PHASES[landed.total() % len(PHASES)] if more else ""
                words, killed = victim(
                    lambda tell, task=task: site.answer(task, tell),
                    when,
                    chance.uniform(0, lengths.get(when, 0.0)),
                )
                told.update(word for word in words if word.startswith(("begun", "drawn")))
                for word in words:
                    if word.startswith("sent"):
                        _, named, digest = word.split(" ")
                        sent.setdefault(named, set()).add(digest)
                check(site, told, sent)
                if killed:
                    landed[next(word for word in reversed(words) if word in PHASES)] += 1
                done = not killed
            if "refused" in words:
                refused += 1
                break
        else:
            finished += 1
    entries = check(site, told, sent)
    counts = {"paid": len(entries), "used": told.total(), "sent": sum(map(len, sent.values()))}
    print(json.dumps({"kills": landed, "studies": {"finished": finished, "refused": refused}, **counts}))


def measured(site: Site) -> dict[str, float]:
    """Seconds of each phase, of one round that nobody disturbs."""
    lengths: dict[str, float] = {}
    task = next(site.tasks("measured"))
    last, began = "", 0.0

    def work(tell: Tell) -> None:
        def clocked(word: str) -> None:
            nonlocal last, began
            now = time.perf_counter()
            if last:
                tell(f"{last}={now - began}")
            last, began = (word, now) if word in PHASES else (last, began)

        site.answer(task, clocked)
        clocked("end")

    words, _ = victim(work)
    for word in words:
        name, _, seconds = word.partition("=")
        lengths[name] = max(lengths.get(name, 0.0), float(seconds))
    return lengths


if __name__ == "__main__":
    main()
