"""How a pool of pictures becomes pretend hospitals, and how each divides its own into train, val and test.

The unit that is dealt is a patient together with every picture that shows the same again: no patient and no
cluster of twins ever lies on two sites. All functions are pure and seeded.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from client.splits import share_out, units
from protocol.errors import DataError
from simulation.records import Record

BINS = 5
"""Bins of lesion size, with about the same number of units in each."""

FEWEST = 4
"""Units that every site gets: two to train on, one to validate, one to test."""

Sites = dict[str, list[Record]]


def units_of(pool: Sequence[Record]) -> list[int]:
    """The number of the unit of each record: its patient joined with its cluster of twins."""
    return units(
        [
            ((record.dataset, record.name), (record.dataset, "patient", record.patient or record.name))
            + ((("cluster", record.cluster),) if record.cluster else ())
            for record in pool
        ]
    )


def by_dataset(pool: Sequence[Record]) -> Sites:
    """Each data set is a site.

    Raises:
        DataError: a picture of one data set shows the same as one of another.
    """
    first: dict[int, Record] = {}
    for record, unit in zip(pool, units_of(pool), strict=True):
        other = first.setdefault(unit, record)
        if other.dataset != record.dataset:
            raise DataError(
                f"{other.dataset} and {record.dataset} share pictures ({other.name} and {record.name} are the same)"
                " and cannot be two sites: name one of them in data.datasets, or set data.partition=dirichlet"
            )
    return _enough(_collect(pool, {record.dataset: record.dataset for record in pool}, [r.dataset for r in pool]))


def by_group(pool: Sequence[Record]) -> Sites:
    """Each group is a site; a unit of several groups goes to the one that most of its pictures have.

    Raises:
        DataError: a picture has no group, or a group is too small to be a site.
    """
    votes: dict[int, Counter[str]] = defaultdict(Counter)
    of = units_of(pool)
    for record, unit in zip(pool, of, strict=True):
        if not record.group:
            raise DataError(
                f"{record.image} has no group, so data.partition=group cannot place it: choose dirichlet or quantity"
            )
        votes[unit][record.group] += 1
    place = {unit: min(count, key=lambda group: (-count[group], group)) for unit, count in votes.items()}
    names = {group: re.sub(r"[^A-Za-z0-9_-]+", "_", group) for group in place.values()}
    return _enough(_collect(pool, names, [place[unit] for unit in of]))


def dirichlet(pool: Sequence[Record], shares: Sequence[float], sites: int, alpha: float, seed: int) -> Sites:
    """Sites that differ in lesion size: each bin of sizes is dealt by its own Dirichlet(alpha) proportions.

    The usual label-skew benchmark (Hsu et al. 2019, https://arxiv.org/abs/1909.06335) with the size of the lesion
    as the label. Sites that come out too small are filled up from the largest.

    Args:
        shares: each record's lesion area as a share of its picture.
        alpha: concentration; small is unlike, large is alike.

    Raises:
        DataError: the pool is too small for so many sites.
    """
    rng = np.random.default_rng(seed)
    of = np.array(units_of(pool))
    count = int(of.max()) + 1
    _refuse_small(count, sites)
    size = np.bincount(of, weights=shares) / np.bincount(of)
    order = rng.permutation(count)
    order = order[np.argsort(size[order], kind="stable")]
    place = np.zeros(count, int)
    for members in np.array_split(order, BINS):
        cuts = np.cumsum(rng.dirichlet(np.full(sites, alpha))) * len(members)
        place[rng.permutation(members)] = np.searchsorted(cuts[:-1], np.arange(len(members)), side="right")
    return _numbered(pool, of, _fill(place, sites, rng), sites)


def quantity(pool: Sequence[Record], sites: int, spread: float, seed: int) -> Sites:
    """Sites alike in content and unlike in size: log-normal numbers of units.

    Args:
        spread: standard deviation of the logarithm of the sizes; 0: equal sizes.

    Raises:
        DataError: the pool is too small for so many sites.
    """
    rng = np.random.default_rng(seed)
    of = np.array(units_of(pool))
    count = int(of.max()) + 1
    _refuse_small(count, sites)
    weights = np.exp(spread * rng.standard_normal(sites))
    cuts = np.cumsum(weights / weights.sum()) * count
    place = np.zeros(count, int)
    place[rng.permutation(count)] = np.searchsorted(cuts[:-1], np.arange(count), side="right")
    return _numbered(pool, of, _fill(place, sites, rng), sites)


def split_safe(cases: Sequence[Record], seed: int, val: float, test: float) -> list[str]:
    """The split of each record of one site, whole units together."""
    of = units_of(cases)
    words = share_out(of, seed, val, test)
    return [words[unit] for unit in of]


def split_published(cases: Sequence[Record], seed: int, val: float) -> list[str]:
    """The split of each record of one site as the literature has it, twins in two splits and all.

    A list of train and val alone is a benchmark's: its val is what papers report, so it becomes test. Where that
    leaves no val, it is drawn from the units of train.

    Raises:
        DataError: a record is in no published list.
    """
    for record in cases:
        if not record.published:
            raise DataError(f"{record.dataset} has no published lists: set data.split=safe")
    tested = {record.dataset for record in cases if record.published == "test"}
    words = [r.published if r.dataset in tested or r.published == "train" else "test" for r in cases]
    if "val" not in words:
        train = [unit for unit, word in zip(units_of(cases), words, strict=True) if word == "train"]
        if len(set(train)) < 2:
            raise DataError(
                f"a site has {len(set(train))} patients to train on in the published lists: make fewer sites"
            )
        drawn = iter([share_out(train, seed, val, 0.0)[unit] for unit in train])
        words = [next(drawn) if word == "train" else word for word in words]
    return words


def _collect(pool: Sequence[Record], names: Mapping[str, str], keys: Sequence[str]) -> Sites:
    sites: Sites = {name: [] for name in sorted(names.values())}
    for record, key in zip(pool, keys, strict=True):
        sites[names[key]].append(record)
    return sites


def _enough(sites: Sites) -> Sites:
    for name, cases in sites.items():
        count = len(set(units_of(cases)))
        if count < FEWEST:
            raise DataError(f"the site {name!r} would have {count} patients, and needs {FEWEST}: choose dirichlet")
    return sites


def _refuse_small(count: int, sites: int) -> None:
    if count < sites * FEWEST:
        raise DataError(
            f"{count} patients are too few for {sites} sites of at least {FEWEST}: lower data.sites to"
            f" {count // FEWEST} or add images"
        )


def _fill(place: np.ndarray, sites: int, rng: np.random.Generator) -> np.ndarray:
    """Move units, one at a time, from the largest site to the smallest until each has `FEWEST`."""
    while (count := np.bincount(place, minlength=sites)).min() < FEWEST:
        place[rng.choice(np.flatnonzero(place == count.argmax()))] = count.argmin()
    return place


def _numbered(pool: Sequence[Record], of: np.ndarray, place: np.ndarray, sites: int) -> Sites:
    width = len(str(sites))
    names = [f"site{number + 1:0{width}}" for number in range(sites)]
    made: Sites = {name: [] for name in names}
    for record, unit in zip(pool, of, strict=True):
        made[names[place[unit]]].append(record)
    return made
