"""What stands between a server and a hospital's trainer: the policy, the guard, the privacy ledger and the outbox.

gatekeeper = Gatekeeper(...)                        refuses a study
gatekeeper.answer(task, compute)                    sends a finished reply again, or computes, keeps and filters
    gatekeeper.admit(task)                          refuses a crafted model, and scores of patients who are trained on
    gatekeeper.admit_beside(received)               refuses what came beside it, where it is not finite
    gatekeeper.noised(task, values)                 the scores that leave with noise alone, paid for
    gatekeeper.pay(task)                            refuses a round, or it is paid for and may be walked
"""

import contextlib
import functools
import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from client.outbox import Outbox
from client.packed import read_packed, schema_of
from client.privacy.allowed import EPSILON
from client.privacy.guard import check_finite, check_model
from client.privacy.policy import Policy
from client.privacy.private_site import PrivateSite
from client.privacy.promise import void_promise
from client.private_training import noisy_walk
from client.site import Site
from client.training import Walk, run_phase
from protocol.errors import DataError, PolicyError, RunError
from protocol.messages import EVALUATE, TRAIN, Reply, Task
from protocol.settings import Table, section
from strategies import Strategy
from strategies.local import Arrays
from urwkv import URWKV, Architecture

log = logging.getLogger(__name__)

Values = Callable[[str, Sequence[str]], dict[str, npt.NDArray[np.float64]]]
"""Of a split and some metrics, what each image scores."""

SCORED = ("", "val", "test")
"""The splits that a server may ask the scores of; "" for none."""


class Gatekeeper:
    """The hospital's own word, kept for one study.

    Args:
        policy: the hospital's.
        table: the study's complete table.
        strategy: the study's.
        site: whose data it is.
        state: the folder for what must outlive the process; None where no privacy is asked for.
        pretend: whether this is a site of a simulation: then noise follows from the seed, and where none is asked
            for, models are not looked at.

    Raises:
        PolicyError: the hospital does not allow the study.
        LedgerError: its ledger is missing or damaged.
        SettingsError: privacy does not go with another setting, or the budget is too small.
        RunError: there is no folder for the replies.
    """

    def __init__(
        self,
        policy: Policy,
        table: Table,
        strategy: Strategy,
        site: Site,
        state: Path | None,
        *,
        pretend: bool,
    ) -> None:
        model = URWKV.from_architecture(section(table, "model", Architecture))  # fresh, of the site's own making
        self._policy, self._schema = policy, schema_of(model)
        self._run = Path(str(table["run.out"])).name
        fresh = read_packed(model, self._schema)
        x = self._schema.unpack(fresh)
        phases = strategy.phases(x, int(table["train.epochs"]), strategy.broadcast(x), {})
        self._epochs = sum(phase.epochs for phase in phases)
        patients = [case.patient for case in site.split("train")]
        self._private = PrivateSite(policy, table, strategy, patients, self._epochs, site.name if pretend else None)
        self._outbox: Outbox | None = None
        if self._private.settings.asked:
            if state is None:
                raise RunError("differential privacy has a site keep its replies: name a folder for them")
            self._outbox = Outbox(state, policy.allow.terms)
        elif not pretend and (words := void_promise(policy)):
            log.warning("this study trains without privacy: %s", words)
        self._guards = self._private.settings.asked or not pretend
        self._site, self._pretend = site, pretend
        self._trusted = fresh

    def answer(self, task: Task, compute: Callable[[Task], Reply]) -> Reply:
        """The reply to a task as it may leave: one that was finished before is sent again, nothing is paid twice.

        Raises:
            PolicyError: the task is refused; the site's own log says so, too.
            FedURWKVError: what `compute` raises; which file of a real site has a fault, its own log alone says.
        """
        outbox = self._outbox_of(task)
        reply = outbox.find(task) if outbox else None
        if reply is None:
            try:
                with nameless(self._site.folder, self._pretend):
                    reply = compute(task)
            except PolicyError as error:
                log.warning("%s refuses round %d: %s", self._site.name, task.round, error)
                raise
            if outbox:
                outbox.keep(task, reply)
        return replace(reply, scalars=self._policy.let_out(reply.scalars))

    def _outbox_of(self, task: Task) -> Outbox | None:
        """Where the reply to a task is kept, if noise went into it that cannot be drawn again."""
        if self._outbox is None or task.kind == TRAIN:
            return self._outbox if task.kind == TRAIN else None
        noisy = task.kind == EVALUATE and self._policy.allow.scores.get(task.split)
        return Outbox(self._outbox.folder / f"scores-{task.split}", self._outbox.terms) if noisy else None

    def admit(self, task: Task) -> None:
        """Look at a model that is to be trained or evaluated, beside the last one that was trained.

        Scores can be asked for as often as a server likes: under a crafted model they would spell out an image, and
        those of the training images are no less than the update.

        Raises:
            PolicyError: it was made to read images out of its update or its scores, or scores of another split than
                val and test are asked for.
            RunError: the reply that was kept with the last one is torn.
        """
        if task.split not in SCORED:
            raise PolicyError(f"scores of the split {task.split!r} are refused: a site tells those of val and test")
        if self._guards:  # another process of this site may have trained since
            last = (self._outbox.last_asked() if self._outbox else None) or self._trusted
            check_model(self._schema.unpack(task.model), self._schema.unpack(last))

    def admit_beside(self, received: Arrays) -> None:
        """Look at what came beside the model: it moves the weights along the steps, where nobody looks again.

        Raises:
            PolicyError: it holds values that are not finite.
        """
        if self._guards:
            check_finite(received)

    def noised(self, task: Task, values: Values) -> dict[str, float]:
        """The scores that the policy lets out with noise alone, to take the place of the exact ones.

        Args:
            values: of a split and some metrics, what each image scores.

        Raises:
            BudgetError: they would pass a limit.
        """
        metrics, cases = self._policy.allow.scores.get(task.split, {}), self._site.split(task.split)
        if not metrics or not cases:
            return {}
        patients = [case.patient for case in cases]
        each = values(task.split, sorted(metrics))
        return self._private.scores(task.study, self._run, task.round, task.split, patients, each, _asked(task))

    def pay(self, task: Task) -> tuple[Walk, dict[str, float]]:
        """Pay for a round before its first step: what walks its phases, and what was spent.

        Raises:
            BudgetError: it would pass a limit.
        """
        if not self._private.settings.asked:
            self._trusted = task.model
            return functools.partial(run_phase, fewest=self._policy.privacy.batch), {}
        entry = self._private.pay(task.study, self._run, task.round, _asked(task))
        self._trusted = task.model
        return noisy_walk(self._private, task.round, self._epochs), {EPSILON: entry.epsilon}


def _asked(task: Task) -> str:
    """What came to be trained or evaluated, as a word for the ledger."""
    return hashlib.sha256(task.model + task.received).hexdigest()[:16]


@contextlib.contextmanager
def nameless(folder: Path, pretend: bool) -> Iterator[None]:
    """Files are often named after patients: which one of a real site's folder has a fault, its own log alone says.

    Raises:
        DataError: what was raised inside, as it may leave.
    """
    try:
        yield
    except DataError as error:
        if pretend or f"{folder}{os.sep}" not in str(error):
            raise
        log.error("%s", error)
        raise DataError("the site's data cannot be used: its log, and fedurwkv site check, say which file") from None
