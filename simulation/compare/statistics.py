"""Paired differences between two contestants over the same test images, and what chance alone would make of them.

Images of one site are alike, and so are the images that one seed's models have seen: they are not independent. The
interval therefore comes from a bootstrap in which whole seeds are drawn with replacement, then whole sites, then the
images of each drawn site (Saravanan, Berman and Sober, Neurons, Behavior, Data analysis and Theory 3(5), 2020,
https://arxiv.org/abs/2007.07797; Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 3.8):

* Where each seed makes sites of its own, sites are nested in seeds: each drawn seed draws its own sites.
* Where the sites are the same hospitals in every seed, seeds and sites are crossed: both are drawn once, each for
  itself (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007, https://arxiv.org/abs/0712.1111).
  Where also the test images are the same, they are drawn once for all seeds.

Drawing at every level makes it a little wide where sites hold few images. Few sites or seeds make it too narrow: n
values vary by sqrt((n - 1) / n) of what they are drawn from, and a quantile of few values is never beyond the extreme
one. One seed, or one site, cannot be drawn in two ways: that level then adds nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata, wilcoxon

DRAWS = 10_000
LEVEL = 0.95
AT_A_TIME = 1 << 21
"""Values that a bootstrap holds at a time."""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, order=True)
class Key:
    """One test of one image: the seed whose models were tested, the site and the image."""

    seed: int
    site: str
    image: str


Values = Mapping[Key, float]


@dataclass(frozen=True)
class Interval:
    """An estimate and the bounds within which chance leaves it."""

    estimate: float
    low: float
    high: float

    @property
    def holds_zero(self) -> bool:
        """Whether no difference is among the values that it leaves possible."""
        return self.low <= 0 <= self.high


def differences(values: Values, reference: Values) -> dict[Key, float]:
    """values - reference, image by image.

    Raises:
        ValueError: they are not of the same images.
    """
    if values.keys() != reference.keys():
        raise ValueError("a paired difference needs the same images on both sides")
    return {key: values[key] - reference[key] for key in sorted(values)}


def estimate(values: Values) -> float:
    """The mean over seeds of the mean over all of a seed's images."""
    return float(np.mean([np.mean(list(part.values())) for part in _by_seed(values).values()]))


def interval(values: Values, *, crossed: bool, level: float = LEVEL, draws: int = DRAWS) -> Interval:
    """The estimate with its bootstrap percentile interval; the same input gives the same interval.

    Args:
        values: a number an image, such as a paired difference.
        crossed: whether a site is the same hospital in every seed.
        level: the share of such intervals that should hold the truth.
    """
    cells = {seed: _by_site(part) for seed, part in _by_seed(values).items()}
    rng = np.random.default_rng(0)
    means = _crossed(cells, draws, rng) if crossed else _nested(cells, draws, rng)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(estimate(values), float(low), float(high))


def signed_rank(values: Values, *, crossed: bool) -> float:
    """Two-sided p of Wilcoxon's signed ranks over images, those that do not differ ranked too (Pratt 1959).

    Where the sites are the same hospitals in every seed, an image that several seeds test counts once, by its mean.
    It takes images for independent, which images of one site are not quite: read it beside the interval.
    """
    means = _by_image(values, crossed=crossed)
    return float(wilcoxon(means, zero_method="pratt").pvalue) if means.any() else 1.0


def leaning(values: Values, *, crossed: bool) -> int:
    """The side to which those signed ranks lean: 1 above zero, -1 below, 0 neither.

    The mean may lie on the other side: where most images lose a little and few gain much.
    """
    means = _by_image(values, crossed=crossed)
    return int(np.sign(np.sign(means) @ rankdata(np.abs(means))))


def _by_image(values: Values, *, crossed: bool) -> Floats:
    """One value for each image that counts."""
    images: dict[tuple[int | None, str, str], list[float]] = {}
    for key, value in values.items():
        images.setdefault((None if crossed else key.seed, key.site, key.image), []).append(value)
    return np.array([np.mean(one) for one in images.values()])


def holm(p: Sequence[float]) -> list[float]:
    """Holm's adjusted p of several tests: max over j <= i of (m - j + 1) p_(j), p_(1) the smallest.

    Scandinavian Journal of Statistics 6, 1979, pages 65 to 70.
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return adjusted


Cells = Mapping[int, Mapping[str, Mapping[str, float]]]
"""Values by seed, site and image."""


def _nested(cells: Cells, draws: int, rng: np.random.Generator) -> Floats:
    """Means of bootstrap samples: seeds, then each seed's own sites, then images."""
    seeds = list(cells.values())
    picked = rng.integers(len(seeds), size=(draws, len(seeds)))
    means = np.empty(picked.shape)
    for number, sites in enumerate(seeds):
        where = picked == number
        groups = [np.array([list(images.values())]) for images in sites.values()]
        chosen = rng.integers(len(groups), size=(int(where.sum()), len(groups)))
        sums, counts = _sums_of_sites(groups, chosen, rng)
        means[where] = sums[0] / counts[0]
    return means.mean(axis=1)


def _crossed(cells: Cells, draws: int, rng: np.random.Generator) -> Floats:
    """Means of bootstrap samples: seeds and sites, each drawn once, then images."""
    seeds = list(cells.values())
    names = sorted({name for sites in seeds for name in sites})
    chosen = rng.integers(len(names), size=(draws, len(names)))
    images = [[sites.get(name, {}) for sites in seeds] for name in names]
    if all(one.keys() == rows[0].keys() for rows in images for one in rows):
        groups = [np.array([list(one.values()) for one in rows]) for rows in images]
        sums, counts = _sums_of_sites(groups, chosen, rng)
    else:  # each seed tests other images of the site
        parts = [
            _sums_of_sites([np.array([list(rows[number].values())]) for rows in images], chosen, rng)
            for number in range(len(seeds))
        ]
        sums, counts = (np.concatenate(both) for both in zip(*parts, strict=True))
    means = np.divide(sums, counts, out=np.zeros_like(sums), where=counts > 0)  # (seeds, draws)
    picked = rng.integers(len(seeds), size=(draws, len(seeds)))
    return np.take_along_axis(means.T, picked, axis=1).mean(axis=1)


def _sums_of_sites(
    groups: Sequence[Floats], chosen: npt.NDArray[np.int64], rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Sums and numbers of images when each row of `chosen` draws these sites, and each site draws its images.

    Args:
        groups: the values of each site, (seeds, images).
        chosen: numbers of sites, (draws, sites).

    Returns:
        Both (seeds, draws).
    """
    sums = np.zeros((len(groups[0]), *chosen.shape))
    counts = np.zeros_like(sums)
    for number, values in enumerate(groups):
        where = chosen == number
        counts[:, where] = values.shape[1]
        sums[:, where] = _resampled(values, int(where.sum()), rng)
    return sums.sum(axis=2), counts.sum(axis=2)


def _resampled(values: Floats, times: int, rng: np.random.Generator) -> Floats:
    """Sums of `times` samples of as many images, drawn with replacement; (seeds, images) to (seeds, times)."""
    rows, size = values.shape
    sums = np.zeros((rows, times))
    step = max(1, AT_A_TIME // max(1, rows * size))
    for start in range(0, times if size else 0, step):
        drawn = rng.integers(size, size=(min(step, times - start), size))
        sums[:, start : start + step] = values[:, drawn].sum(axis=2)
    return sums


def _by_seed(values: Values) -> dict[int, dict[Key, float]]:
    parts: dict[int, dict[Key, float]] = {}
    for key in sorted(values):
        parts.setdefault(key.seed, {})[key] = values[key]
    return parts


def _by_site(values: Values) -> dict[str, dict[str, float]]:
    parts: dict[str, dict[str, float]] = {}
    for key in sorted(values):
        parts.setdefault(key.site, {})[key.image] = values[key]
    return parts
