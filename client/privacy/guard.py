"""The guard at the door: a global model made to read a site's images out of its update is not trained on.

Such models stand out from what averaging makes (Fowl et al. 2022, https://arxiv.org/abs/2110.13057; Boenisch et al.
2023, https://arxiv.org/abs/2112.02918): layers of many units that measure the same thing, units that are switched off
so that one image alone passes, and weights that jump. Each rule compares with a model that the site trusts: the last
one it trained on, or its own fresh one before the first round. A patient attacker can stay below every rule: what
bounds what an update shows is the noise, and the guard stops the crude and the careless.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from protocol.errors import PolicyError
from strategies.groups import group_of

Arrays = Mapping[str, npt.NDArray[Any]]

JUMP = 10.0
"""Largest change of a tensor, in units of its norm before."""

FLOOR = 0.1
"""Root mean square with which the norm of a vector counts at least: biases begin at 0."""

ALIKE = 1 - 1e-6
"""Cosine from which on two units measure the same."""

DEAD = 1e-6
"""Norm, as a share of the layer's largest, below which a unit is switched off."""

MORE = 0.1
"""Share of a layer's units that may be dead or alike beyond those of the model before."""


def check_model(x: Arrays, before: Arrays) -> None:
    """Whether the global model `x` may be trained on.

    Args:
        x: the model as it came, by name.
        before: the one that the site trained on last, or a fresh network of its own.

    Raises:
        PolicyError: it may not; names the tensor and what is wrong with it.
    """
    _check_schema(x, before)
    check_finite(x)
    for name, tensor in x.items():
        if not np.issubdtype(tensor.dtype, np.floating):
            continue
        if group_of(name, tensor.dtype) == "parameter":  # statistics leap to the data's in the first round
            _check_jump(name, tensor, before[name])
        if tensor.ndim >= 2:
            _check_units(name, tensor, before[name])


def check_finite(arrays: Arrays) -> None:
    """Raises PolicyError at the first of some arrays, by name, that holds values that are not finite."""
    for name, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise _refused(name, "holds values that are not finite")


def _check_schema(x: Arrays, before: Arrays) -> None:
    for name in sorted(x.keys() ^ before.keys()):
        raise _refused(name, "is missing" if name in before else "is not of this network")
    for name, tensor in x.items():
        if (tensor.shape, tensor.dtype) != (before[name].shape, before[name].dtype):
            raise _refused(name, f"is {tensor.dtype} {tensor.shape}, not {before[name].dtype} {before[name].shape}")


def _check_jump(name: str, tensor: npt.NDArray[Any], before: npt.NDArray[Any]) -> None:
    old = before.astype(np.float64)
    size = max(float(np.linalg.norm(old)), FLOOR * old.size**0.5 if old.ndim < 2 else 1e-12)
    jump = float(np.linalg.norm(tensor.astype(np.float64) - old)) / size
    if jump > JUMP:
        raise _refused(name, f"moved by {jump:.3g} times its norm since this site trained last, {JUMP:g} is the most")


def _check_units(name: str, tensor: npt.NDArray[Any], before: npt.NDArray[Any]) -> None:
    for what, count in (("switched off", dead_units), ("alike", alike_units)):
        now, old = count(tensor), count(before)
        if now - old > max(1, MORE * len(tensor)):
            raise _refused(name, f"has {now} of {len(tensor)} units {what}, {old} when this site trained last")


def dead_units(weight: npt.NDArray[Any]) -> int:
    """How many of the units (rows of the first axis) have no weights to speak of."""
    norms = np.linalg.norm(_rows(weight), axis=1)
    return int((norms <= DEAD * norms.max()).sum())


def alike_units(weight: npt.NDArray[Any]) -> int:
    """How many units have another one in the same direction, or the opposite one; dead ones count as none."""
    rows = _rows(weight)
    norms = np.linalg.norm(rows, axis=1)
    rows = rows[norms > 0] / norms[norms > 0, None]
    if rows.shape[1] < 2:  # in one dimension all are alike
        return 0
    cosines = np.abs(rows @ rows.T)
    np.fill_diagonal(cosines, 0)
    return int((cosines > ALIKE).any(axis=1).sum())


def _rows(weight: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    return weight.reshape(len(weight), -1).astype(np.float64)


def _refused(name: str, why: str) -> PolicyError:
    return PolicyError(
        f"the global model is refused: {name} {why}; if the study lead meant it, begin the study anew with a model"
        " that both sides have looked at"
    )
