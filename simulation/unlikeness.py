"""How unlike the sites of a study are: counts, lesion sizes and brightness, each against the pool of all sites."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.special import rel_entr

from client.images import read_image, read_values
from client.site import Case, Site, read_site
from protocol.splits import SPLITS
from simulation.records import in_threads

BINS = 5
"""Bins of lesion size, cut so that the pool has about as many pictures in each."""

GREYS = 32
"""Bins of brightness."""

SIDE = 64
"""Side in pixels at which brightness is counted."""

SHUFFLES = 20
"""Random divisions of the pool over which the distance that chance alone makes is averaged."""

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SiteFacts:
    """One site: pictures by split, patients, shares of its pictures in each bin of lesion size, brightness.

    Attributes:
        lesion: median share of the picture that is lesion.
        brightness: mean and standard deviation over pixels, 0 to 255.
        lesion_distance, brightness_distance: Jensen-Shannon distance to the pool (base 2): 0 alike, 1 disjoint.
    """

    name: str
    counts: dict[str, int]
    patients: int
    lesion: float
    lesion_bins: list[float]
    brightness: tuple[float, float]
    lesion_distance: float
    brightness_distance: float


@dataclass(frozen=True)
class Unlikeness:
    """All sites, the upper edges of the bins of lesion size, and the two scalars beside what chance would make.

    A scalar is the mean over the sites of their distance to the pool, weighted by their pictures.
    """

    sites: list[SiteFacts]
    edges: list[float]
    lesion: float
    lesion_by_chance: float
    brightness: float
    brightness_by_chance: float


def describe(folders: Sequence[Path], *, seed: int, val: float, test: float) -> Unlikeness:
    """Read every picture of the site folders once.

    Raises:
        DataError: a site or a picture cannot be read.
    """
    sites = [read_site(folder, seed=seed, val=val, test=test) for folder in folders]
    seen = in_threads(_look, [case for site in sites for case in site.cases])
    lesions = np.array([lesion for lesion, _ in seen])
    greys = np.array([grey for _, grey in seen])
    owner = np.repeat(np.arange(len(sites)), [len(site.cases) for site in sites])
    edges = np.quantile(lesions, np.arange(1, BINS) / BINS)
    sizes = np.eye(BINS)[np.searchsorted(edges, lesions, side="left")]
    lesion_distances, brightness_distances = distances(sizes, owner), distances(greys, owner)
    weights = np.bincount(owner) / len(owner)
    rng = np.random.default_rng(0)
    facts = []
    for number, site in enumerate(sites):
        own = owner == number
        apart = float(lesion_distances[number]), float(brightness_distances[number])
        facts.append(_facts(site, lesions[own], sizes[own], greys[own], *apart))
    return Unlikeness(
        sites=facts,
        edges=[*edges.tolist(), 1.0],
        lesion=float(weights @ lesion_distances),
        lesion_by_chance=by_chance(sizes, owner, rng),
        brightness=float(weights @ brightness_distances),
        brightness_by_chance=by_chance(greys, owner, rng),
    )


def distances(histograms: Array, owner: npt.NDArray[np.intp]) -> Array:
    """Jensen-Shannon distance (base 2) of each site's summed histogram to the pool's.

    Args:
        histograms: (N, K), one of each picture.
        owner: (N,), the number of the site of each picture.
    """
    pool = histograms.sum(axis=0)
    sums = np.array([histograms[owner == site].sum(axis=0) for site in range(owner.max() + 1)])
    p, q = sums / sums.sum(axis=1, keepdims=True), pool / pool.sum()
    middle = (p + q) / 2
    divergence = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / (2 * np.log(2))
    # rounding can leave equal distributions a hair below 0
    distance: Array = np.sqrt(divergence.clip(0))
    return distance


def by_chance(histograms: Array, owner: npt.NDArray[np.intp], rng: np.random.Generator) -> float:
    """The weighted mean distance when the same pictures are dealt at random to sites of the same sizes."""
    weights = np.bincount(owner) / len(owner)
    return float(np.mean([weights @ distances(histograms, rng.permutation(owner)) for _ in range(SHUFFLES)]))


def _look(case: Case) -> tuple[float, Array]:
    """The share of lesion, and the share of pixels in each bin of brightness."""
    picture = read_image(case.image, in_channels=1).resize((SIDE, SIDE), Image.Resampling.BOX)
    counts = np.bincount(np.asarray(picture).ravel() // (256 // GREYS), minlength=GREYS)
    return float((read_values(case.mask) > 0).mean()), counts / counts.sum()


def _facts(
    site: Site, lesions: Array, sizes: Array, greys: Array, lesion_distance: float, brightness_distance: float
) -> SiteFacts:
    middle = (np.arange(GREYS) + 0.5) * 256 / GREYS
    mean = float(greys.mean(axis=0) @ middle)
    return SiteFacts(
        name=site.name,
        counts={word: len(site.split(word)) for word in SPLITS},
        patients=len({case.patient for case in site.cases}),
        lesion=float(np.median(lesions)),
        lesion_bins=sizes.mean(axis=0).tolist(),
        brightness=(mean, float(np.sqrt(greys.mean(axis=0) @ (middle - mean) ** 2))),
        lesion_distance=lesion_distance,
        brightness_distance=brightness_distance,
    )
