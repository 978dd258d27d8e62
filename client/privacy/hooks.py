"""Per-sample gradients of a whole network: by Opacus's hooks with our rules, and by what convolutions leave."""

import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import ClassVar

import torch
from opacus.grad_sample import GradSampleHooks
from torch import Tensor, nn

from client.privacy.kept import Kept
from client.privacy.samplers import SAMPLERS, Sampler
from protocol.errors import SettingsError
from urwkv.leaves import PerSample
from urwkv.steps import chosen

BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class _Hooks(GradSampleHooks):
    """Opacus's hooks with our table of rules: the table of all Opacus stays as it is."""

    GRAD_SAMPLERS: ClassVar[dict[type[nn.Module], Sampler]] = SAMPLERS

    def iterate_submodules(self, module: nn.Module) -> Iterable[nn.Module]:
        return (layer for layer in super().iterate_submodules(module) if type(layer) is not nn.Conv2d)


def check_network(model: nn.Module) -> None:
    """Whether each sample's gradient can be had, and is of that sample alone.

    Raises:
        SettingsError: a layer mixes samples, or has trainable parameters and no rule; names it, and the cure.
    """
    for name, module in model.named_modules():
        kind = type(module)
        if isinstance(module, BATCH_NORMS):
            raise SettingsError(
                f"model.norm = 'batch': the layer {name} mixes the images of a batch, so that no image has a gradient"
                " of its own; use --set model.norm=group"
            )
        bare = [leaf for leaf, weight in module.named_parameters(recurse=False) if weight.requires_grad]
        if bare and kind not in SAMPLERS:
            known = ", ".join(sorted(rule.__name__ for rule in SAMPLERS))
            raise SettingsError(
                f"the layer {name or 'at the top'} ({kind.__name__}) has trainable parameters of its own"
                f" ({', '.join(bare)}) and no rule for per-sample gradients; put them into layers of: {known}"
            )
        if isinstance(module, nn.Conv2d) and (module.padding_mode != "zeros" or isinstance(module.padding, str)):
            raise SettingsError(
                f"the layer {name} pads by {module.padding!r} with {module.padding_mode}, which has no rule for"
                " per-sample gradients; pad with zeros, by numbers"
            )


@contextmanager
def per_sample_gradients(model: nn.Module) -> Iterator[None]:
    """Inside, each trainable weight gets `grad_sample` (B, *shape) by a backward pass of a *sum* of per-image losses.

    Weights must be marked trainable or not before; the model is left without a trace.

    Raises:
        SettingsError: see `check_network`.
    """
    check_network(model)
    # torch's remark on a layer whose input needs no gradient, as a first layer's never does
    warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
    hooks, kept = _Hooks(model, loss_reduction="sum"), Kept()
    convolutions = [
        m for m in model.modules() if type(m) is nn.Conv2d and any(w.requires_grad for w in m.parameters())
    ]
    for layer in convolutions:
        layer.forward = partial(kept.convolution, layer)  # type: ignore[method-assign]
    before = {PerSample: _cut, nn.GroupNorm: _lead}
    changed = [m.register_forward_pre_hook(before[type(m)]) for m in model.modules() if type(m) in before]
    try:
        with chosen(model, "auto", kept):
            yield
    finally:
        for handle in changed:
            handle.remove()
        hooks.cleanup()
        for layer in convolutions:
            vars(layer).pop("forward")
        for module in model.modules():
            module.__dict__.pop("activations", None)
            module.__dict__.pop("max_batch_len", None)


def _cut(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """A hook of the backward pass waits for the gradient of the layer's input, which these layers do not pass on."""
    return tuple(x.detach() for x in inputs)


def _lead(_: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Behind frozen layers: torch 2.13 crashes in a group norm whose input, channels last, needs no gradient."""
    return tuple(x if x.requires_grad or not torch.is_grad_enabled() else x.detach().requires_grad_() for x in inputs)
