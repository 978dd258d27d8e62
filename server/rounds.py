"""The rounds of a federation: ask, gate, aggregate, score, journal; then one closing evaluation.

The replies of round r+1 score the global model of round r, because a site evaluates what it receives before it
trains; the closing evaluation scores the last one. The best model by pooled validation Dice is kept apart.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from flwr.serverapp import Grid

from protocol.codec import TransferSettings
from protocol.errors import RoundError, RunError, SettingsError
from protocol.messages import EVALUATE, TRAIN, Kind, Reply, Task
from protocol.packing import Schema
from protocol.settings import section
from protocol.strategy import make_strategy
from server.exchange import exchange
from server.gate import Gate, QuarantineError, printable
from server.journal import Arrays, Journal, State
from server.roster import Roster, call_roll, sample
from server.scores import book, pooled, record, unscored, worst
from server.settings import FederationSettings
from server.status import Status
from server.writer import Writer
from strategies import Update

log = logging.getLogger("fedurwkv.server")

SCORES = {
    "val": ("val.images", "val.dice", "val.iou", "val.loss"),
    "test": ("test.images", "test.dice", "test.iou", "test.hd95", "test.nsd"),
}
"""What a reply must hold of the split that it was asked to evaluate."""


@dataclass
class Answers:
    """What came of one exchange: the replies that count, who was left out and why, bytes, seconds waited."""

    replies: dict[str, Reply] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    bytes_down: int = 0
    bytes_up: int = 0
    waited: float = 0.0


class Federation:
    """One run of a federation over a grid of sites, from its journal's state to its end.

    Args:
        grid: Flower's grid of nodes.
        state: where the run stands; its settings are the run's.
        journal: where each round is written.
        status: what the run is doing, for those who watch it.
    """

    def __init__(self, grid: Grid, state: State, journal: Journal, status: Status) -> None:
        self.grid = grid
        self.state = state
        self.writer = Writer(journal)
        self.status = status
        self.settings = section(state.settings, "federation", FederationSettings)
        self.strategy = make_strategy(state.settings)
        self.strategy.state = dict(state.strategy)
        self.schema = Schema.of((name, a.shape, a.dtype) for name, a in state.model.items())
        self.codec = section(state.settings, "transfer", TransferSettings).codec
        self.seed = int(state.settings["seed"])
        self.roster: Roster = {}
        self._marked = time.perf_counter()

    def run(self) -> dict[str, Reply]:
        """Run all rounds that are left and the closing evaluation.

        Returns:
            The sites' replies with the best model's test scores, by name.

        Raises:
            RoundError: too few sites joined, or a round found no quorum; the journal holds every round before.
            OSError: the journal could not be written; it holds every round but the last two.
        """
        with self.writer:
            return self._run()

    def _run(self) -> dict[str, Reply]:
        self._marked = time.perf_counter()
        self.status.update(phase="joining", rounds=self.settings.rounds)
        self.roster = call_roll(self.grid, self.settings.sites, self.settings.deadline)
        self._check_roster()
        while self.state.round < self.settings.rounds and not self.state.stopped_early:
            self._round(self.state.round + 1)
        if not self.state.closed:
            self._score_last()
        return self._test_best()

    def _check_roster(self) -> None:
        """What would fail after hours fails here: splits without images, an unreachable quorum, other sites."""
        sites = [{"name": name, **member.images} for name, member in self.roster.items()]
        if self.state.sites and sites != self.state.sites:
            raise RunError("the sites or their images are others than when the run began; resume it with the same")
        for split, share in (("val", "data.val"), ("test", "data.test")):
            if not any(member.images[split] for member in self.roster.values()):
                raise RoundError(f"no site has {split} images: raise {share}, or name some in a site.csv")
        asked = len(sample(self.roster, self.settings.fraction, self.seed, 1))
        if self.settings.needed(asked) > asked:
            quorum = self.settings.quorum
            raise SettingsError(f"federation.quorum = {quorum} can't be met: a round asks {asked} sites")
        self.state.sites = sites

    def _round(self, number: int) -> None:
        """One exchange: the replies train the next global model and score the one that was sent."""
        state, began = self.state, time.perf_counter()
        asked = sample(self.roster, self.settings.fraction, self.seed, number)
        answers = Answers()
        model = self.strategy.aggregate(state.model, self._updates(number, asked, answers))
        if not all(np.isfinite(array).all() for array in model.values()):
            raise RoundError(f"round {number}: the aggregate is not finite, though every update was; see strategy.*")
        exchanged = time.perf_counter() - began
        if number > 1:
            self._score(number - 1, answers.replies)
        state.model, state.round, state.strategy = model, number, self.strategy.state
        entry = record(number, answers.replies, answers.failed, time.perf_counter() - began)
        state.history.append(entry | {"bytes_down": answers.bytes_down, "bytes_up": answers.bytes_up})
        state.stopped_early = 0 < self.settings.patience <= number - 1 - state.best_round
        self._spend(answers, exchanged)
        self.writer.write(state)

    def _updates(self, number: int, asked: Roster, answers: Answers) -> Iterator[Update]:
        """The honest updates of a round, as they arrive; at the end, the round before is on disk.

        Raises:
            RoundError: the updates are no quorum.
        """
        gate = self._gate(self.state.model, number, (*SCORES["val"], "train.images", "train.loss"))
        for reply in self._replies(TRAIN, "val", asked, gate, answers):
            try:
                update = gate.update(reply, asked[reply.site])
            except QuarantineError as error:
                self._leave_out(reply.site, str(error), answers)
                continue
            answers.replies[reply.site] = reply
            yield update
        self._check_quorum(f"round {number}", asked, answers)
        self.writer.wait()

    def _check_quorum(self, what: str, asked: Roster, answers: Answers) -> None:
        needed = self.settings.needed(len(asked))
        if len(answers.replies) < needed:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in answers.failed.items())
            raise RoundError(
                f"{what} has {len(answers.replies)} valid replies, fewer than the {needed} that"
                f" federation.quorum asks for ({reasons}); mend the sites and go on with --resume"
            )

    def _gate(self, model: Arrays, number: int, required: tuple[str, ...]) -> Gate:
        return Gate(self.schema, model, number, self.settings.max_update, required, self.codec)

    def _replies(self, kind: Kind, split: str, asked: Roster, gate: Gate, answers: Answers) -> Iterator[Reply]:
        """The replies of one exchange whose sender, round and scalars are in order; the rest is left out."""
        packed = self.schema.pack(gate.x)
        nodes = {name: member.node for name, member in asked.items()}
        answers.bytes_down += len(packed) * len(nodes)
        late = set(nodes)
        deadline = self.settings.deadline
        self.status.update(phase=kind, round=gate.round, asked=len(nodes), waiting=sorted(late))
        began = time.perf_counter()
        for name, message in exchange(
            self.grid, Task(kind, gate.round, self.schema.hash, packed, split), nodes, deadline
        ):
            answers.waited += time.perf_counter() - began
            late.remove(name)
            self.status.update(waiting=sorted(late))
            try:
                reply = gate.read(message, asked[name])
                answers.bytes_up += len(reply.model)
                yield reply
            except QuarantineError as error:
                self._leave_out(name, str(error), answers)
            began = time.perf_counter()
        answers.waited += time.perf_counter() - began
        for name in sorted(late):
            self._leave_out(name, f"no reply within the deadline of {deadline:g} s", answers)

    def _leave_out(self, name: str, reason: str, answers: Answers) -> None:
        answers.failed[name] = reason = printable(reason)
        log.warning("site %s is left out: %s", name, reason)

    def _score(self, number: int, replies: Mapping[str, Reply]) -> None:
        """Write the validation scores of round `number`'s model, `state.model`, into its record; keep it if best."""
        state, entry = self.state, self.state.history[number - 1]
        dice = pooled(replies.values(), "val", "dice")
        if dice is None:
            return
        for name, reply in sorted(replies.items()):
            if reply.scalars.get("val.images"):
                site = entry["sites"].setdefault(name, unscored())
                site |= {"dice": reply.scalars["val.dice"], "iou": reply.scalars["val.iou"]}
        entry["global_dice"], entry["worst_site_dice"] = dice, worst(replies.values(), "val", "dice")
        if not state.best_round or dice > state.best_dice:
            state.best, state.best_round, state.best_dice = state.model, number, dice

    def _score_last(self) -> None:
        """The closing evaluation: the last global model on every site's validation images."""
        answers = self._evaluate("val", self.state.model)
        self._score(self.state.round, answers.replies)
        if not self.state.best_round:
            raise RoundError(f"no round could be scored ({answers.failed}); mend the sites and go on with --resume")
        self.state.closed = True
        self._spend(answers)
        self.writer.write(self.state)

    def _test_best(self) -> dict[str, Reply]:
        answers = self._evaluate("test", self.state.best)
        self._spend(answers)
        return dict(sorted(answers.replies.items()))

    def _evaluate(self, split: str, model: Arrays) -> Answers:
        """One exchange with every site; its failures and bytes are booked on the last round."""
        answers = Answers()
        gate = self._gate(model, self.state.round, SCORES[split])
        for reply in self._replies(EVALUATE, split, self.roster, gate, answers):
            answers.replies[reply.site] = reply
        self._check_quorum(f"the closing evaluation on {split} images", self.roster, answers)
        last = self.state.history[-1]
        last["failed"] |= {name: f"closing evaluation: {reason}" for name, reason in answers.failed.items()}
        last["bytes_down"] += answers.bytes_down
        last["bytes_up"] += answers.bytes_up
        return answers

    def _spend(self, answers: Answers, exchanged: float | None = None) -> None:
        """Book the wall time since the last booking by what it went to."""
        now = time.perf_counter()
        total, self._marked = now - self._marked, now
        exchanged = answers.waited if exchanged is None else exchanged
        parts = book(total, exchanged, exchanged - answers.waited, answers.replies.values())
        for name, value in parts.items():
            self.state.seconds[name] = self.state.seconds.get(name, 0.0) + value
