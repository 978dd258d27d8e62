"""The answers of sites to one question, through the gate: those that count, and who was left out and why."""

import logging
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flwr.serverapp import Grid

from protocol.errors import RoundError
from protocol.messages import Reply, Task
from server.exchange import exchange
from server.gate import Gate, QuarantineError, printable
from server.roster import Roster
from server.status import Status

log = logging.getLogger("fedurwkv.server")


@dataclass
class Answers:
    """What came of one or more exchanges: the replies that count, who was left out and why, bytes, seconds waited.

    `spent` are those left out whose privacy budget is spent.
    """

    replies: dict[str, Reply] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    spent: set[str] = field(default_factory=set)
    bytes_down: int = 0
    bytes_up: int = 0
    waited: float = 0.0

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a site does not count, and why."""
        self.failed[name] = reason = printable(reason)
        log.warning("site %s is left out: %s", name, reason)

    @property
    def reasons(self) -> str:
        """Who was left out and why, in one line."""
        return "; ".join(f"{name}: {reason}" for name, reason in self.failed.items())

    def check_quorum(self, what: str, needed: int) -> None:
        """RoundError when fewer than `needed` replies count."""
        if len(self.replies) < needed:
            raise RoundError(
                f"{what} has {len(self.replies)} valid replies, fewer than the {needed} that"
                f" federation.quorum asks for ({self.reasons}); mend the sites and go on with --resume"
            )


@dataclass(frozen=True)
class Line:
    """The line to the sites.

    Attributes:
        grid: Flower's grid of nodes.
        deadline: seconds that an exchange may take.
        status: where it says who is waited for.
    """

    grid: Grid
    deadline: float
    status: Status

    def ask(self, tasks: Mapping[str, Task], roster: Roster, gate: Gate, answers: Answers) -> Iterator[Reply]:
        """Ask sites, by name; yield the replies whose sender, round and scalars are in order. The rest is left out.

        A reply is not among `answers.replies` yet: whoever takes it may still find fault with it.
        """
        late = set(tasks)
        names = {roster[name].node: name for name in tasks}
        answers.bytes_down += sum(len(task.model) + len(task.received) for task in tasks.values())
        kind = next(iter(tasks.values())).kind
        self.status.update(phase=kind, round=gate.round, asked=len(tasks), waiting=sorted(late), began=time.time())
        began = time.perf_counter()
        for node, message in exchange(self.grid, {roster[n].node: task for n, task in tasks.items()}, self.deadline):
            answers.waited += time.perf_counter() - began
            name = names[node]
            late.remove(name)
            self.status.update(waiting=sorted(late))
            try:
                reply = gate.read(message, roster[name])
                answers.bytes_up += len(reply.model)
                yield reply
            except QuarantineError as error:
                answers.leave_out(name, str(error))
                if error.spent:
                    answers.spent.add(name)
            began = time.perf_counter()
        answers.waited += time.perf_counter() - began
        for name in sorted(late):
            answers.leave_out(name, f"no reply within the deadline of {self.deadline:g} s")
