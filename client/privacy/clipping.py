"""The noisy gradient: each sample's is scaled to a bound, they are summed, and noise of the bound's size is added.

    g = ( sum_i f(|g_i|) g_i + sigma C N(0, 1) ) / L        |f(|g_i|) g_i| <= C        L the expected batch

Opacus's optimizer keeps the books: no gradient counts twice, and physical batches add up to one logical batch, which
gets its noise once.
"""

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
        samples = [self._get_flat_grad_sample(p).to(p.dtype) for p in self.params]
        norms = torch.stack([torch.linalg.vector_norm(grads.flatten(1), dim=1) for grads in samples])
        finite = norms.isfinite().all(dim=0)
        if not finite.all():
            samples = [grads[finite] for grads in samples]
            norms = norms[:, finite]
        scales = factors(norms, self.max_grad_norm, self.clipping, self.layers)
        for p, grads, scale in zip(self.params, samples, scales, strict=True):
            _check_processed_flag(p.grad_sample)
            clipped = torch.tensordot(scale, grads, dims=1)
            p.summed_grad = clipped if p.summed_grad is None else p.summed_grad + clipped
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
        parts = torch.split(noise, sizes)
        for p, part in zip(self.params, parts, strict=True):
            _check_processed_flag(p.summed_grad)
            p.grad = torch.empty_like(p).copy_(part.view_as(p).add_(p.summed_grad))
            _mark_as_processed(p.summed_grad)
