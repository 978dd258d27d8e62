"""The rounds of a federation: ask, gate, aggregate, score, journal; then one closing evaluation.

The replies of round r+1 score the global model of round r, because a site evaluates what it receives before it
trains; the closing evaluation scores the last one. The best model by pooled validation Dice is kept apart. Where a
site has a part of its own, model and part are of the same round, in every score.
"""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain

import numpy as np
from flwr.serverapp import Grid

from protocol.codec import TransferSettings
from protocol.errors import RoundError
from protocol.messages import Reply
from protocol.packing import Schema
from protocol.settings import section
from protocol.strategy import make_strategy, needed_scalars
from server.answers import Answers, Line
from server.gate import Gate, QuarantineError
from server.identity import Enrolment
from server.journal import Arrays, Journal, State
from server.questions import Questions
from server.roster import Roster, call_roll, check_roster, sample
from server.scores import book, pooled, record, unscored, worst
from server.settings import FederationSettings
from server.status import Status
from server.writer import Writer
from strategies import Update

log = logging.getLogger("fedurwkv.server")


class Federation:
    """One run of a federation over a grid of sites, from its journal's state to its end.

    Args:
        grid: Flower's grid of nodes.
        state: where the run stands; its settings are the run's.
        journal: where each round is written.
        status: what the run is doing, for those who watch it.
        enrolment: under which names sites may take part; None: they are taken at their word.
    """

    def __init__(
        self, grid: Grid, state: State, journal: Journal, status: Status, enrolment: Enrolment | None = None
    ) -> None:
        self.state = state
        self.enrolment = enrolment
        self.writer = Writer(journal)
        self.status = status
        self.settings = section(state.settings, "federation", FederationSettings)
        self.line = Line(grid, self.settings.deadline, status)
        self.strategy = make_strategy(state.settings)
        self.strategy.state = dict(state.strategy)
        self.strategy.rounds = self.settings.rounds
        self.schema = Schema.like(state.model)
        self.questions = Questions(state, journal.study, self.strategy, self.schema)
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
        self.roster = call_roll(self.line.grid, self.settings.sites, self.settings.deadline, self.enrolment)
        if self.enrolment:
            self.status.update(refused=self.enrolment.refused)
        check_roster(self.roster, self.state, self.settings, self.strategy)
        self.strategy.sites = len(self.roster)
        while self.state.round < self.settings.rounds and not (self.state.stopped_early or self.state.ended):
            self._round(self.state.round + 1)
        if not self.state.closed:
            self._score_last()
        return self._test_best()

    def _round(self, number: int) -> None:
        """The turns of a round make the next global model; the sites' replies score the one before.

        A strategy of several turns sends all but the first site another model than the one to be scored. There the
        sites are asked for the scores apart, before the first turn, and train without evaluating.
        """
        state = self.state
        asked = sample(self.roster, self.settings.fraction, self.seed, number)
        turns = self.strategy.turns(sorted(asked))
        if len(turns) > 1 and number > 1:
            self._score_apart("evaluation")
        began, answers, model = time.perf_counter(), Answers(), state.model
        try:
            for turn in turns:
                split = "val" if len(turns) == 1 else ""
                model = self._turn(number, model, {name: asked[name] for name in turn}, split, answers)
            answers.check_quorum(f"round {number}", self.settings.needed(len(asked)))
        except RoundError:
            if not self._is_spent(answers, len(asked)):
                raise
            self._end(number, answers)
            return
        if not all(np.isfinite(array).all() for array in model.values()):
            raise RoundError(f"round {number}: the aggregate is not finite, though every update was; see strategy.*")
        exchanged = time.perf_counter() - began
        self.questions.round_ends(self.roster)
        if len(turns) == 1 and number > 1:
            self._score(number - 1, answers.replies)
        state.model, state.round, state.strategy = model, number, self.strategy.state
        state.accepted |= dict.fromkeys(answers.replies, number)
        entry = record(number, answers.replies, answers.failed, time.perf_counter() - began)
        state.history.append(entry | {"bytes_down": answers.bytes_down, "bytes_up": answers.bytes_up})
        state.stopped_early = 0 < self.settings.patience <= number - 1 - state.best_round
        self._spend(answers, exchanged)
        self.writer.write(state)

    def _is_spent(self, answers: Answers, asked: int) -> bool:
        """Whether a round after the first failed for want of privacy budgets: else it would have had its quorum."""
        there = len(answers.replies) + len(answers.spent)
        return bool(answers.spent) and self.state.round > 0 and there >= self.settings.needed(asked)

    def _end(self, number: int, answers: Answers) -> None:
        """No further round can be had: those so far are the run, and the record of the last says why."""
        state = self.state
        state.ended = f"the privacy budget of {', '.join(sorted(answers.spent))} is spent"
        log.warning("the run ends with round %d: in round %d %s", state.round, number, state.ended)
        last = state.history[-1]
        last["failed"] |= {name: f"round {number}: {reason}" for name, reason in sorted(answers.failed.items())}
        last["bytes_down"] += answers.bytes_down
        last["bytes_up"] += answers.bytes_up
        self._spend(answers)
        self.writer.write(state)

    def _turn(self, number: int, model: Arrays, asked: Roster, split: str, answers: Answers) -> Arrays:
        """One exchange: the model that comes of `model` and the updates of `asked`; itself, when none counts.

        Raises:
            RoundError: the strategy cannot make a model of these updates.
        """
        updates = self._updates(number, model, asked, split, answers)
        first = next(updates, None)
        if first is None:
            return model
        try:
            return self.strategy.aggregate(model, chain([first], updates))
        except ValueError as error:
            answers.check_quorum(f"round {number}", self.settings.needed(len(asked)))
            left_out = f" ({answers.reasons})" if answers.failed else ""
            raise RoundError(f"round {number}: {error}{left_out}; mend it and go on with --resume") from error

    def _updates(self, number: int, model: Arrays, asked: Roster, split: str, answers: Answers) -> Iterator[Update]:
        """The honest updates of a turn, as they arrive; at the end, the round before is on disk."""
        needed = needed_scalars(self.strategy)
        gate = Gate(self.schema, model, number, self.settings.max_update, needed, self.codec)
        tasks = self.questions.train(number, model, asked, split)
        for reply in self.line.ask(tasks, asked, gate, answers):
            try:
                update = gate.update(reply, asked[reply.site])
            except QuarantineError as error:
                answers.leave_out(reply.site, str(error))
                continue
            answers.replies[reply.site] = replace(reply, model=b"")  # memory is not to grow with the sites
            yield update
        self.writer.wait()

    def _score(self, number: int, replies: Mapping[str, Reply]) -> None:
        """Write the validation scores of round `number`'s model, `state.model`, into its record; keep it if best."""
        state, entry = self.state, self.state.history[number - 1]
        dice = pooled(replies.values(), "val", "dice")
        if dice is None:
            if not state.best_round and any(reply.scalars.get("val.images") for reply in replies.values()):
                raise RoundError(
                    "no site tells val.dice, without which no model can be chosen: have a hospital name it in"
                    " allow.scalars of its site.yaml, and go on with --resume"
                )
            return
        for name, reply in sorted(replies.items()):
            if reply.scalars.get("val.images"):
                site = entry["sites"].setdefault(name, unscored())
                site |= {metric: reply.scalars.get(f"val.{metric}") for metric in ("dice", "iou")}
        entry["global_dice"], entry["worst_site_dice"] = dice, worst(replies.values(), "val", "dice")
        if not state.best_round or dice > state.best_dice:
            state.best, state.best_round, state.best_dice = state.model, number, dice
            state.best_accepted = dict(state.accepted)

    def _score_apart(self, what: str) -> None:
        """Score the last global model on every site's validation images, in an exchange of its own."""
        answers = self._evaluate(what, "val", self.state.model, self.state.round, self.state.accepted)
        self._score(self.state.round, answers.replies)
        self._spend(answers)

    def _score_last(self) -> None:
        self._score_apart("closing evaluation")
        if not self.state.best_round:
            failed = self.state.history[-1]["failed"]
            raise RoundError(f"no round could be scored ({failed}); mend the sites and go on with --resume")
        self.state.closed = True
        self.writer.write(self.state)

    def _test_best(self) -> dict[str, Reply]:
        state = self.state
        answers = self._evaluate("closing evaluation", "test", state.best, state.best_round, state.best_accepted)
        self._spend(answers)
        return dict(sorted(answers.replies.items()))

    def _evaluate(self, what: str, split: str, model: Arrays, number: int, accepted: Mapping[str, int]) -> Answers:
        """One exchange with every site; its failures and bytes are booked on the last round."""
        answers = Answers()
        gate = Gate(self.schema, model, number, self.settings.max_update)
        tasks = self.questions.evaluate(number, model, self.roster, split, accepted)
        for reply in self.line.ask(tasks, self.roster, gate, answers):
            answers.replies[reply.site] = reply
        answers.check_quorum(f"the {what} on {split} images", self.settings.needed(len(self.roster)))
        last = self.state.history[-1]
        last["failed"] |= {name: f"{what}: {reason}" for name, reason in answers.failed.items()}
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
