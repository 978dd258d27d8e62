"""A phase of local training by noisy steps (DP-SGD, Abadi et al. 2016, https://arxiv.org/abs/1607.00133).

Of a step's patients one image each is drawn, in `views` augmentations whose gradients are averaged before they are
clipped (De et al. 2022, https://arxiv.org/abs/2204.13650, section 3). Memory holds one physical batch at a time.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from client.data import Batch, Images
from client.privacy.average import Average
from client.privacy.clipping import PrivateOptimizer
from client.privacy.draws import Rows, draw
from client.privacy.passes import Pass, Passes
from client.privacy.plan import Plan
from client.privacy.randomness import Randomness
from client.privacy.trainable import trainable_names
from protocol.errors import RoundError
from protocol.seeds import seed_of

AHEAD = 3
"""Physical batches that are made while the device computes."""

ALIKE = 16
"""A GPU's physical batches are filled up to a multiple of so many images, for draws differ in size and its libraries
plan every size anew. What fills them has no share in the loss, and its gradients are dropped."""


@dataclass(frozen=True)
class Chunk:
    """A physical batch: whether it ends its step, how many images it has, and how to make its views."""

    last: bool
    images: int
    views: tuple[Future[Batch], ...]


@dataclass(frozen=True)
class Walked:
    """What came of a phase.

    Attributes:
        rates: the learning rate of each step.
        loss: the mean loss of the images drawn, before each step; 0 when none was. No noise covers it.
    """

    rates: tuple[float, ...]
    loss: float


def private_phase(
    passes: Passes,
    images: Images,
    units: Sequence[Rows],
    plan: Plan,
    *,
    epochs: int,
    make_optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer],
    learning_rate: Callable[[int], float],
    randomness: Randomness,
    augment: bool,
    only: frozenset[str] | None = None,
    correct: Callable[[], None] = lambda: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Walked:
    """Train the model of `passes` in place by `epochs * plan.steps` noisy steps.

    Args:
        units: the rows of each unit, `client.privacy.draws.rows_by_unit`; `plan.units` of them.
        make_optimizer: over the tensors that learn.
        learning_rate: of step 0, 1, ... of this phase.
        only: names of the tensors that the strategy lets move, besides `privacy.trainable`; None: all.
        correct: adds the strategy's correction to the gradients, after the noise and before the step.
        stopped: asked before each step; when true, the round is given up.

    Raises:
        RoundError: the weights are no longer finite, or the round was given up.
        SettingsError: the network has a layer without per-sample gradients, or nothing learns.
    """
    settings, model = plan.settings, passes.model
    moving = trainable_names(model, settings.trainable)
    moving = moving if only is None else moving & only
    before = {name: weight.requires_grad for name, weight in model.named_parameters()}
    steps = epochs * plan.steps
    if not moving or not steps:
        return Walked((), 0.0)
    model.train()
    try:
        for name, weight in model.named_parameters():
            weight.requires_grad_(name in moving)
        names = [name for name in before if name in moving]
        weights = [model.get_parameter(name) for name in names]
        optimizer = PrivateOptimizer(
            make_optimizer(weights),
            names,
            noise=plan.noise,
            bound=settings.clip,
            batch=plan.batch,
            clipping=settings.clipping,
            randomness=randomness,
        )
        with passes.over(names) as pass_:
            walked = _walk(
                pass_, weights, optimizer, images, units, plan, steps, learning_rate, passes.place.device, augment,
                correct, stopped,
            )  # fmt: skip
    finally:
        for name, weight in model.named_parameters():
            weight.requires_grad_(before[name])
    if not all(bool(weight.isfinite().all()) for weight in weights):
        raise RoundError("private training diverged: the weights are not finite; lower train.lr or privacy.clip")
    return walked


def _walk(
    pass_: Pass,
    weights: list[nn.Parameter],
    optimizer: PrivateOptimizer,
    images: Images,
    units: Sequence[Rows],
    plan: Plan,
    steps: int,
    learning_rate: Callable[[int], float],
    device: torch.device,
    augment: bool,
    correct: Callable[[], None],
    stopped: Callable[[], bool],
) -> Walked:
    average = Average(weights, plan.settings.ema) if plan.settings.ema else None
    rates: list[float] = []
    loss_sum, drawn = torch.zeros((), device=device), 0
    alike = ALIKE if device.type == "cuda" else 1
    for chunk in _chunks(images, units, plan, steps, optimizer.randomness, augment, alike):
        if stopped():
            raise RoundError("the round was given up on request")
        if chunk.images:
            loss_sum += _backward(pass_, weights, chunk)
            drawn += chunk.images
        else:
            for weight in weights:
                weight.grad_sample = weight.new_zeros((0, *weight.shape))  # type: ignore[attr-defined]
        optimizer.signal_skip_step(not chunk.last)
        if optimizer.pre_step():
            rates.append(learning_rate(len(rates)))
            for group in optimizer.param_groups:
                group["lr"] = rates[-1]
            correct()
            optimizer.original_optimizer.step()
            if average:
                average.update()
        optimizer.zero_grad(set_to_none=True)
    if average:
        average.write()
    return Walked(tuple(rates), loss_sum.item() / max(1, drawn))


def _backward(pass_: Pass, weights: list[nn.Parameter], chunk: Chunk) -> torch.Tensor:
    """Leave each image's gradient, averaged over its views, at the weights; the sum of their losses."""
    count = len(chunk.views)
    losses: list[torch.Tensor] = []
    sums: list[torch.Tensor] = []
    for view in chunk.views:
        pixels, masks = view.result()
        loss, grads = pass_(pixels, masks, torch.arange(len(pixels)) < chunk.images)
        losses.append(loss / count)
        if sums:
            torch._foreach_add_(sums, grads)
        else:
            sums = [each.clone() for each in grads] if count > 1 else grads
        del grads  # or the next view's would find them still in memory
    if count > 1:
        torch._foreach_div_(sums, count)
    for weight, each in zip(weights, sums, strict=True):
        weight.grad_sample = each[: chunk.images]  # type: ignore[attr-defined]
    return torch.stack(losses).sum()


def _chunks(
    images: Images, units: Sequence[Rows], plan: Plan, steps: int, randomness: Randomness, augment: bool, alike: int
) -> Iterator[Chunk]:
    """The physical batches of all steps, made ahead; a step that draws nobody is one empty batch."""
    ready: deque[Chunk] = deque()
    physical = plan.settings.physical
    with ThreadPoolExecutor(2, thread_name_prefix="views") as threads:
        try:
            for _ in range(steps):
                rows = draw(units, plan.rate, randomness)
                seed = int(randomness.bits(1)[0])
                parts = np.array_split(rows, max(1, -(-len(rows) // physical)))
                for number, part in enumerate(parts):
                    seeds = [seed_of(seed, number, view) for view in range(plan.settings.views)]
                    size = min(-(-len(part) // alike) * alike, physical)
                    views = tuple(threads.submit(_view, images, part, size, own, augment) for own in seeds)
                    ready.append(Chunk(number == len(parts) - 1, len(part), views))
                    if len(ready) > AHEAD:
                        yield ready.popleft()
            yield from ready
        finally:
            for late in ready:
                for view in late.views:
                    view.cancel()


def _view(images: Images, rows: Rows, size: int, seed: int, augment: bool) -> Batch:
    """The images of `rows`, and empty ones up to `size`."""
    pixels, masks = images.images[rows], images.masks[rows]
    if augment and len(rows):
        # albumentations takes seconds to import, and only training needs it
        from client.augment import augment_in_place

        augment_in_place(pixels, masks, seed)
    return _filled(torch.from_numpy(pixels), size), _filled(torch.from_numpy(masks), size)


def _filled(rows: torch.Tensor, size: int) -> torch.Tensor:
    missing = size - len(rows)
    return torch.cat([rows, rows.new_zeros((missing, *rows.shape[1:]))]) if missing else rows
