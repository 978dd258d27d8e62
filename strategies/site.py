"""The site's half of a strategy, round by round: what it starts from, evaluates, trains, sends and remembers.

    round = LocalRound(strategy, memory, number, accepted, x, received)
    evaluate(round.personal)
    journeys = [run(phase) for phase in round.phases(epochs)]      y <- y - eta_l (g + pull (y - x) + drift)
    arrays, scalars = round.close(journeys, losses)                what the reply holds

The trainer of a hospital and the testbed both do just that; only the loss and the device differ.
"""

from collections.abc import Collection, Mapping, MutableMapping, Sequence
from typing import Any

import numpy.typing as npt

from strategies.base import Strategy
from strategies.local import Arrays, Journey, Phase, State


class Memory:
    """What one site remembers of one study: its state after the rounds that may still count, by their numbers.

    A site cannot know whether its reply arrived. So it proposes a state a round, and the next task says which
    was the last reply that the server counted: from that state it goes on, as if rounds after it had never been.

    Args:
        states: where the states are kept, changed in place: a dict, or a mapping that writes each to disk. An empty
            one gets the beginning, round 0, at which a site remembers nothing.
    """

    def __init__(self, states: MutableMapping[int, State] | None = None) -> None:
        self.states: MutableMapping[int, State] = {} if states is None else states
        if not self.states:
            self.states[0] = {}

    def at(self, accepted: int) -> State:
        """The state after round `accepted`, the last whose reply was counted; 0 before any was.

        Raises:
            ValueError: the site does not remember that round.
        """
        if accepted not in self.states:
            known = ", ".join(map(str, sorted(self.states)))
            raise ValueError(
                f"the server counted this site's reply of round {accepted}, but the site remembers rounds {known}:"
                " put its state back from a copy, or begin the study anew"
            )
        return self.states[accepted]

    def propose(self, number: int, accepted: int, state: State, keep: Collection[int] = ()) -> None:
        """Remember `state` as of round `number`, and of earlier rounds only those that may still count.

        These are round `accepted`, the one counted before it, which lets a study go back by one round, and those in
        `keep`. The new state is there before an old one goes. States of later rounds are left alone: whoever
        answers too late must not take away what a later answer has proposed meanwhile.
        """
        before = max((n for n in self.states if n < accepted), default=accepted)
        self.states[number] = state
        for old in [n for n in self.states if n < number and n not in (before, accepted, *keep)]:
            del self.states[old]


class LocalRound:
    """One round at one site.

    Args:
        strategy: the study's.
        memory: what this site remembers of the study; changed by `close`.
        number: the round, from 1.
        accepted: the last round whose reply from this site the server counted; 0 before any was.
        x: the global model as it came.
        received: what came beside it.
        keep: earlier rounds whose state must stay, beside those that `Memory.propose` keeps of itself.

    Raises:
        ValueError: the site does not remember what the server counts on.
    """

    def __init__(
        self,
        strategy: Strategy,
        memory: Memory,
        number: int,
        accepted: int,
        x: Arrays,
        received: Arrays,
        keep: Collection[int] = (),
    ) -> None:
        self.strategy = strategy
        self.memory = memory
        self.number = number
        self.accepted = accepted
        self.x = x
        self.received = received
        self.keep = keep
        self.state: State = memory.at(accepted) if strategy.remembers else {}

    @property
    def personal(self) -> Arrays:
        """The model that this site would use now, to be evaluated."""
        return self.strategy.personal(self.x, self.state)

    def phases(self, epochs: int) -> list[Phase]:
        """What to train, in order."""
        return self.strategy.phases(self.x, epochs, self.received, self.state)

    def close(
        self, journeys: Sequence[Journey], losses: Mapping[str, float]
    ) -> tuple[dict[str, npt.NDArray[Any]], dict[str, float]]:
        """The model and the scalars to send; proposes to the memory what the site remembers of this round.

        Args:
            journeys: one for each phase.
            losses: those of `strategies.local.LOSSES` that the strategy reports.

        Returns:
            y_i, with x's values where the site keeps its own to itself; the scalars that the strategy reports.
        """
        if self.strategy.remembers:
            state = self.strategy.remember(self.x, self.received, self.state, journeys)
            self.memory.propose(self.number, self.accepted, state, self.keep)
        kept = self.strategy.kept(self.x)
        y = journeys[-1].end
        sent = {name: self.x[name] if name in kept else y[name] for name in self.x}
        known = {**journeys[-1].scalars(), **losses}
        return sent, {name: known[name] for name in self.strategy.reports}
