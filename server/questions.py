"""What the server asks of sites in a round: a task a site, each with the state that belongs to the model it gets."""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from protocol.messages import EVALUATE, TRAIN, Kind, Task
from protocol.packing import Schema
from server.journal import Arrays, State
from strategies import Strategy


class Questions:
    """Makes the tasks of one run.

    Args:
        state: where the run stands; read anew for every task.
        study: what tells the run from every other (`server.journal.Journal.study`).
        strategy: the run's.
        schema: that of the model.
    """

    def __init__(self, state: State, study: str, strategy: Strategy, schema: Schema) -> None:
        self._state = state
        self._study = study
        self._strategy = strategy
        self._schema = schema
        self._before: dict[str, set[int]] = {}

    def train(self, number: int, model: Arrays, names: Iterable[str], split: str) -> dict[str, Task]:
        """The tasks, by site, of training `model` in round `number`.

        Args:
            split: what to evaluate it on before; "" for nothing.
        """
        received = self._strategy.broadcast(model)
        beside = Schema.like(received)
        task = self._task(TRAIN, number, model, split)
        task = replace(task, received_schema=beside.hash, received=beside.pack(received))
        return {
            name: replace(
                task,
                accepted=self._state.accepted.get(name, 0),
                keep=tuple(sorted(self._before.get(name, set()) | self._needed(name))),
            )
            for name in names
        }

    def evaluate(
        self, number: int, model: Arrays, names: Iterable[str], split: str, accepted: Mapping[str, int]
    ) -> dict[str, Task]:
        """The tasks, by site, of evaluating `model`, which is that of round `number`.

        Args:
            accepted: the last round that counted by then, by site, so that a site's own part is of that time, too.
        """
        task = self._task(EVALUATE, number, model, split)
        return {name: replace(task, accepted=accepted.get(name, 0)) for name in names}

    def round_ends(self, names: Iterable[str]) -> None:
        """Say that the state is about to move on.

        The journal on disk may stay one round behind, and a run that is killed goes on from there, so what is needed
        now is asked to be kept for one round more.
        """
        self._before = {name: self._needed(name) for name in names}

    def _needed(self, name: str) -> set[int]:
        """The rounds whose state of a site the run needs as it stands: for its last model and for its best."""
        return {self._state.accepted.get(name, 0), self._state.best_accepted.get(name, 0)}

    def _task(self, kind: Kind, number: int, model: Arrays, split: str) -> Task:
        return Task(kind, number, self._schema.hash, self._schema.pack(model), split, study=self._study)
