"""The noisy gradient: each sample's is scaled to a bound, they are summed, and noise of the bound's size is added.

    g = ( sum_i f(|g_i|) g_i + sigma C N(0, 1) ) / L        |f(|g_i|) g_i| <= C        L the expected batch

Opacus's optimizer keeps the books: no gradient counts twice, and physical batches add up to one logical batch, which
gets its noise once.
"""

import itertools
from collections.abc import Sequence

import torch
from opacus.optimizers import DPOptimizer
from opacus.optimizers.optimizer import _check_processed_flag, _mark_as_processed
from torch import Tensor

from client.privacy.randomness import Randomness
from client.privacy.settings import Clipping

MARGIN = 1 - 1e-5
"""Share of the bound that scaled gradients are scaled to: norms are rounded, the bound must hold all the same."""

AUTOMATIC = 0.01
"""gamma of automatic clipping."""

SMALL = 4096
"""Numbers of a tensor up to which tensors of a size are scaled at once: a GPU waits for each operation's start."""


def factors(norms: Tensor, bound: float, clipping: Clipping, layers: Sequence[int]) -> Tensor:
    """What each sample's gradients are multiplied by, so that their norm over all tensors is at most `bound`.

    flat        min(1, C / |g|)                                      Abadi et al. 2016, https://arxiv.org/abs/1607.00133
    layer       the same in each of n layers, with C / sqrt(n)       McMahan et al. 2018, https://arxiv.org/abs/1710.06963
    automatic   C / (|g| + gamma): nothing to tune                   Bu et al. 2023, https://arxiv.org/abs/2206.07136

    Args:
        norms: (P, B), the norms of P tensors of B samples.
        layers: which layer each tensor belongs to, numbered from 0.

    Returns:
        (P, B).
    """
    if clipping == "layer":
        index = torch.tensor(layers, device=norms.device)
        squares = norms.new_zeros(max(layers) + 1, norms.shape[1]).index_add_(0, index, norms.square())
        return (MARGIN * bound / len(squares) ** 0.5 / squares.sqrt()).clamp(max=1.0)[index]
    total = torch.linalg.vector_norm(norms, dim=0)
    scale = (bound / (total + AUTOMATIC)) if clipping == "automatic" else (bound / total).clamp(max=1.0)
    return torch.where(total * scale < MARGIN * bound, scale, MARGIN * scale).expand_as(norms)


class PrivateOptimizer(DPOptimizer):
    """Opacus's optimizer with our three ways of clipping, and with noise that cannot be foreseen.

    Args:
        optimizer: over the trainable tensors alone.
        names: their names, in the optimizer's order; tensors of one layer have all but the last word in common.
        noise: sigma, in units of the bound.
        bound: C.
        batch: L, the expected number of samples a step.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        names: Sequence[str],
        *,
        noise: float,
        bound: float,
        batch: float,
        clipping: Clipping,
        randomness: Randomness,
    ) -> None:
        super().__init__(optimizer, noise_multiplier=noise, max_grad_norm=bound, expected_batch_size=batch)
        self.clipping = clipping
        self.randomness = randomness
        numbers: dict[str, int] = {}
        self.layers = [numbers.setdefault(name.rpartition(".")[0], len(numbers)) for name in names]

    @torch.no_grad()
    def clip_and_accumulate(self) -> None:
        """Add the scaled gradients of a physical batch to the sum; one that is not finite counts as 0."""
        for p in self.params:
            _check_processed_flag(p.grad_sample)
        alike = _alike(self.params)
        blocks = [
            _block([self._get_flat_grad_sample(self.params[i]).to(self.params[i].dtype) for i in g]) for g in alike
        ]
        norms = torch.cat([torch.linalg.vector_norm(block, dim=2) for block in blocks])
        finite = norms.isfinite().all(dim=0)
        if not finite.all():
            blocks = [block[:, finite] for block in blocks]
            norms = norms[:, finite]
        scales = factors(norms, self.max_grad_norm, self.clipping, [self.layers[i] for group in alike for i in group])
        each = torch.split(scales[:, None], [len(group) for group in alike])
        sums = [torch.bmm(scale, block).squeeze(1) for scale, block in zip(each, blocks, strict=True)]
        pairs = zip(itertools.chain(*alike), itertools.chain(*sums), strict=True)
        clipped = [row.view_as(self.params[i]) for i, row in sorted(pairs, key=lambda pair: pair[0])]
        if self.params[0].summed_grad is None:
            for p, first in zip(self.params, clipped, strict=True):
                p.summed_grad = first
        else:
            torch._foreach_add_([p.summed_grad for p in self.params], clipped)
        for p in self.params:
            _mark_as_processed(p.grad_sample)

    @torch.no_grad()
    def add_noise(self) -> None:
        """Put sum + sigma C N(0, 1) into the gradients, added up in float64.

        They get the weights' own layout in memory: fused optimizers take that for granted.
        """
        sizes, device = [p.numel() for p in self.params], self.params[0].device
        if self.noise_multiplier:
            std = self.noise_multiplier * self.max_grad_norm
            noise = self.randomness.normals(sum(sizes), device).mul_(std)
        else:  # the bound may be infinite then
            noise = torch.zeros(sum(sizes), dtype=torch.float64, device=device)
        noisy = [part.view_as(p) for p, part in zip(self.params, torch.split(noise, sizes), strict=True)]
        for p in self.params:
            _check_processed_flag(p.summed_grad)
        torch._foreach_add_(noisy, [p.summed_grad for p in self.params])
        for p, sums in zip(self.params, noisy, strict=True):
            p.grad = torch.empty_like(p).copy_(sums)
            _mark_as_processed(p.summed_grad)


def _alike(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Which tensors are computed at once, by their numbers: the small ones of one size."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, tensor in enumerate(tensors):
        groups.setdefault((tensor.numel(), i if tensor.numel() > SMALL else -1), []).append(i)
    return list(groups.values())


def _block(grads: list[Tensor]) -> Tensor:
    """(B, *shape) of n tensors of one size as (n, B, size): a copy only of several."""
    rows = [each.flatten(1) for each in grads]
    return torch.stack(rows) if len(rows) > 1 else rows[0][None]
