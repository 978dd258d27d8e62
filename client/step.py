"""The training step, in one place: as it is written on any device, and on a GPU as one captured CUDA graph.

A step of U-RWKV is thousands of kernels that a GPU computes faster than they can be launched one by one: at batch 8
of 256 x 256 pixels an H200 needs 26 ms for them, and 12 ms for the graph of the same kernels. So what is captured has
launches for nothing, and a form of the loss that launches more slowly but computes faster: see `client.objective`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from client.device import Place
from client.objective import Loss, Objective
from client.repeated import Recorder, Repeated
from strategies.correction import Correction

Kind = Literal["adamw", "sgd"]

MOMENTUM = 0.0
"""Of SGD."""

Step = Callable[[Tensor, Tensor, float], Tensor]
"""Images (B, H, W, C), masks (B, H, W), both uint8, and the learning rate; the mean loss before the step, which the
next step may overwrite."""


@dataclass(frozen=True)
class Rule:
    """How weights move: the optimizer and its weight decay."""

    optimizer: Kind
    weight_decay: float


def make_optimizer(
    kind: Kind, weights: Collection[Tensor], lr: float | Tensor, weight_decay: float
) -> torch.optim.Optimizer:
    """A fresh optimizer over `weights`, its step fused into few kernels.

    Weight decay is part of SGD's gradient, g + decay y, so what strategies read from x - y_i holds for the loss
    f_i + decay/2 |y|^2; AdamW's is not (Loshchilov and Hutter, ICLR 2019, https://arxiv.org/abs/1711.05101).
    """
    if kind == "sgd":
        return torch.optim.SGD(weights, lr=lr, momentum=MOMENTUM, weight_decay=weight_decay, fused=True)
    return torch.optim.AdamW(weights, lr=lr, weight_decay=weight_decay, fused=True)


def gradient_step(
    loss_of: Loss, correction: Correction, optimizer: torch.optim.Optimizer, pixels: Tensor, masks: Tensor
) -> Tensor:
    """One step on one batch on the device; the mean loss before it. The host waits for no value."""
    loss = loss_of(pixels, masks)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    correction.apply()
    optimizer.step()
    return loss.detach()


class Steps:
    """Makes the steps of phases for one model, and keeps what a captured graph holds: optimizers by what they move.

    Args:
        model, weights, correction: a network, its trainable tensors by name, and what is added to their gradients;
            all stay where they are, whatever model they hold.
        recorder: captures; None: every step is taken as it is written.
    """

    def __init__(
        self,
        model: nn.Module,
        weights: Mapping[str, Tensor],
        correction: Correction,
        place: Place,
        recorder: Recorder | None,
    ) -> None:
        self._weights, self._correction, self._place, self._recorder = weights, correction, place, recorder
        self._objective = Objective(model, place)
        self._kept: dict[tuple[Rule, tuple[str, ...]], _Kept] = {}

    def begin(self, rule: Rule, moving: Collection[str], batch: int) -> Step:
        """The step of a new phase, with a fresh optimizer over the weights named in `moving`.

        The correction must have been set, and gradients be asked for those weights alone.

        Args:
            batch: images in most batches; only theirs is worth compiling.
        """
        names = tuple(moving)
        weights = [self._weights[name] for name in names]
        if self._recorder is None:
            return self._as_written(rule, weights)
        if (rule, names) not in self._kept:
            self._kept[rule, names] = _Kept.fresh(rule, weights)
        kept = self._kept[rule, names]
        kept.forget()
        form = self._correction.form, batch
        if form not in kept.forms:
            loss_of, replayed = self._objective.as_written, self._objective.replayed(batch)
            kept.forms[form] = Repeated(
                partial(gradient_step, loss_of, self._correction, kept.optimizer),
                self._recorder,
                partial(gradient_step, replayed, self._correction, kept.optimizer),
            )
        repeated = kept.forms[form]

        def step(pixels: Tensor, masks: Tensor, rate: float) -> Tensor:
            kept.rate.fill_(rate)
            return repeated(pixels, masks)

        return step

    def _as_written(self, rule: Rule, weights: list[Tensor]) -> Step:
        optimizer, send = make_optimizer(rule.optimizer, weights, 0.0, rule.weight_decay), self._place.send

        def step(pixels: Tensor, masks: Tensor, rate: float) -> Tensor:
            optimizer.param_groups[0]["lr"] = rate
            return gradient_step(self._objective.as_written, self._correction, optimizer, send(pixels), send(masks))

        return step


@dataclass(frozen=True)
class _Kept:
    """An optimizer whose state stays where it is, the tensor of its learning rate, and its steps by form."""

    optimizer: torch.optim.Optimizer
    rate: Tensor
    forms: dict[object, Repeated[Tensor]]

    @classmethod
    def fresh(cls, rule: Rule, weights: list[Tensor]) -> "_Kept":
        rate = torch.zeros((), device=weights[0].device)
        optimizer = make_optimizer(rule.optimizer, weights, rate, rule.weight_decay)
        # The fused optimizers keep all of their state on the device, so they can be captured, and say so if they may
        # be: they warn where one that can be captured is not.
        optimizer._warned_capturable_if_run_uncaptured = True
        optimizer.param_groups[0]["capturable"] = True
        return cls(optimizer, rate, {})

    def forget(self) -> None:
        """Make the optimizer a fresh one, in place: its state begins at zero, the count of steps too."""
        for state in self.optimizer.state.values():
            for tensor in state.values():
                tensor.zero_()
