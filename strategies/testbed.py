"""A federation of loss functions: the very halves of a strategy that hospitals run, on anything torch can derive.

It is how the equations are tested, and where a new strategy is tried first:

    x0 = {"w": torch.zeros(1)}
    losses = [lambda x: 0.5 * (x["w"] - 0).square().sum(), lambda x: 1.5 * (x["w"] - 4).square().sum()]
    path = federate(STRATEGIES["scaffold"](), x0, losses, [1, 1], rounds=100, local_steps=5, lr=0.1)
    path[-1]["w"]  # 3
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
import torch

from strategies.base import Strategy, Update, check_range, check_whole
from strategies.correction import Correction
from strategies.groups import group_of
from strategies.local import LOSS_BEFORE, VAL_LOSS, VAL_LOSS_AFTER, Arrays, Journey, Phase
from strategies.site import LocalRound, Memory

Tensors = dict[str, torch.Tensor]
Loss = Callable[[Tensors], torch.Tensor]


class Site:
    """One site: a loss in place of data, full-batch gradient descent in place of an optimizer, an epoch a step.

    Args:
        name: its name.
        loss: f_i, from the model's tensors to a scalar.
        examples: n_i.
        steps: K_i, local steps a round.
        lr: eta_l.
    """

    def __init__(self, name: str, loss: Loss, examples: int, steps: int, lr: float) -> None:
        self.name = name
        self.loss = loss
        self.examples = examples
        self.steps = steps
        self.lr = lr
        self.memory = Memory()
        self.accepted = 0

    def personal(self, strategy: Strategy, x: Arrays) -> Arrays:
        """The model that this site would use after what the server has counted."""
        return LocalRound(strategy, self.memory, 0, self.accepted, x, {}).personal

    def answer(self, strategy: Strategy, number: int, x: Arrays, received: Arrays) -> Update:
        """Do one round."""
        local = LocalRound(strategy, self.memory, number, self.accepted, x, received)
        before = self.value(local.personal)
        journeys: list[Journey] = []
        for phase in local.phases(self.steps):
            start = journeys[-1].end if phase.start is None else phase.start
            journeys.append(self._run(phase, start, x))
        losses = {LOSS_BEFORE: before, VAL_LOSS: before, VAL_LOSS_AFTER: self.value(journeys[-1].end)}
        arrays, scalars = local.close(journeys, losses)
        return Update(self.name, arrays, self.examples, scalars)

    def value(self, arrays: Arrays) -> float:
        """f_i of a model."""
        with torch.no_grad():
            return float(self.loss(tensors(arrays)))

    def _run(self, phase: Phase, start: Arrays, x: Arrays) -> Journey:
        model = tensors(start)
        trainable = {name: model[name] for name, a in x.items() if group_of(name, a.dtype) == "parameter"}
        moving = [w.requires_grad_() for name, w in trainable.items() if phase.only is None or name in phase.only]
        correction = Correction(trainable)
        correction.set(phase, x)
        for _ in range(phase.epochs):
            for weight in moving:
                weight.grad = None
            loss = self.loss(model)
            if loss.requires_grad:  # a phase may move only tensors that this loss does not look at
                loss.backward()  # type: ignore[no-untyped-call]
            correction.apply()
            with torch.no_grad():
                for weight in moving:
                    if weight.grad is not None:
                        weight.sub_(weight.grad, alpha=self.lr)
        return Journey(arrays_of(model), (self.lr,) * phase.epochs)


def federate(
    strategy: Strategy,
    x0: Mapping[str, torch.Tensor],
    losses: Sequence[Loss],
    examples: Sequence[int],
    rounds: int,
    local_steps: int | Sequence[int],
    lr: float,
    *,
    silent: Collection[tuple[int, int]] = (),
    lost: Collection[tuple[int, int]] = (),
) -> list[Tensors]:
    """Run a federation of loss functions.

    Args:
        strategy: a fresh one; its state is the server's afterwards.
        x0: the first global model.
        losses: f_i, a function a site from the model's tensors to a scalar.
        examples: n_i, one a site.
        rounds: how many.
        local_steps: K, or one a site.
        lr: eta_l.
        silent: (round, site) pairs, rounds from 1 and sites from 0, in which the site does nothing.
        lost: pairs in which the site does its work, but the reply never arrives.

    Returns:
        The global model after each round.

    Raises:
        ValueError: the numbers of losses, examples and local steps differ, steps or lr are none, or a round has too
            few updates.
    """
    count = len(losses)
    steps = [local_steps] * count if isinstance(local_steps, int) else list(local_steps)
    if not len(steps) == len(examples) == count:
        raise ValueError(f"{count} losses, {len(examples)} examples and {len(steps)} local_steps: one a site, please")
    check_range("lr", lr, 0.0, above=True)
    for k in steps:
        check_whole("local_steps", k, 1)
    names = [f"site-{index:06d}" for index in range(count)]
    sites = {
        name: Site(name, loss, n, k, lr) for name, loss, n, k in zip(names, losses, examples, steps, strict=True)
    }
    strategy.sites, strategy.rounds = count, rounds
    x = arrays_of(x0)
    path = []
    for number in range(1, rounds + 1):
        quiet = {names[site] for when, site in silent if when == number}
        missing = quiet | {names[site] for when, site in lost if when == number}
        turns = strategy.turns(names)
        for turn in turns:
            received = strategy.broadcast(x)
            updates = [sites[name].answer(strategy, number, x, received) for name in turn if name not in quiet]
            counted = [update for update in updates if update.site not in missing]
            if counted or len(turns) == 1:
                x = strategy.aggregate(x, counted)
            for update in counted:
                sites[update.site].accepted = number
        path.append(tensors(x))
    return path


def tensors(arrays: Arrays) -> Tensors:
    """A copy of a model as tensors."""
    return {name: torch.tensor(a) for name, a in arrays.items()}


def arrays_of(model: Mapping[str, torch.Tensor]) -> dict[str, np.ndarray]:
    """A copy of a model as arrays."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in model.items()}
