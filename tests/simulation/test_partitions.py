"""Partitions: nobody on two sites or in two splits, seeded, and unlike as asked."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import DataError
from simulation.partitions import (
    FEWEST,
    Sites,
    by_dataset,
    by_group,
    dirichlet,
    quantity,
    split_published,
    split_safe,
    units_of,
)
from simulation.records import Record


def record(number: int, **fields: str) -> Record:
    name = f"r{number:03}"
    given = {"dataset": "d", **fields}
    return Record(name, Path(f"{name}.png"), (Path(f"{name}_mask.png"),), **given)


POOL = [record(n, patient=f"p{n // 2}", cluster=f"c{n // 6}" if n % 6 in (0, 5) else "") for n in range(240)]
SHARES = [0.001 * n for n in range(240)]


def sizes(sites: Sites) -> list[int]:
    return [len(cases) for cases in sites.values()]


def check_whole(sites: Sites, pool: list[Record]) -> None:
    """Every record on one site, no patient and no cluster on two, and no site too small."""
    assert Counter(case.name for cases in sites.values() for case in cases) == Counter(r.name for r in pool)
    for key in ("patient", "cluster"):
        where: dict[str, set[str]] = {}
        for name, cases in sites.items():
            for case in cases:
                where.setdefault(getattr(case, key) or case.name, set()).add(name)
        assert all(len(names) == 1 for names in where.values())
    assert all(len(set(units_of(cases))) >= FEWEST for cases in sites.values())


def test_a_unit_joins_patients_and_clusters() -> None:
    pool = [
        record(0, patient="a"),
        record(1, patient="a", cluster="x"),
        record(2, cluster="x"),
        record(3),
        record(4, patient="a", dataset="other"),
    ]
    assert units_of(pool) == [0, 0, 0, 1, 2]


@pytest.mark.parametrize("sites", [1, 2, 4, 9])
@pytest.mark.parametrize("alpha", [0.01, 0.5, 100.0])
def test_dirichlet_is_whole(sites: int, alpha: float) -> None:
    for seed in range(3):
        made = dirichlet(POOL, SHARES, sites, alpha, seed)
        assert len(made) == sites
        check_whole(made, POOL)


def test_dirichlet_is_seeded_and_alpha_says_how_unlike() -> None:
    def spread(alpha: float) -> float:
        means = []
        for seed in range(10):
            made = dirichlet(POOL, SHARES, 4, alpha, seed)
            share = dict(zip((r.name for r in POOL), SHARES, strict=True))
            means.append(np.std([np.mean([share[case.name] for case in cases]) for cases in made.values()]))
        return float(np.mean(means))

    assert dirichlet(POOL, SHARES, 4, 0.5, 7) == dirichlet(POOL, SHARES, 4, 0.5, 7)
    assert dirichlet(POOL, SHARES, 4, 0.5, 7) != dirichlet(POOL, SHARES, 4, 0.5, 8)
    assert spread(0.1) > 1.5 * spread(1.0) > 1.5 * spread(100.0)


@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_quantity_is_whole_and_seeded(spread: float) -> None:
    made = quantity(POOL, 5, spread, seed=3)
    check_whole(made, POOL)
    assert made == quantity(POOL, 5, spread, seed=3)
    assert made != quantity(POOL, 5, spread, seed=4)


def test_quantity_without_spread_is_equal_and_with_it_is_not() -> None:
    singles = [record(n) for n in range(200)]
    assert sizes(quantity(singles, 4, 0.0, seed=0)) == [50] * 4
    assert max(sizes(quantity(singles, 4, 1.5, seed=0))) > 2 * min(sizes(quantity(singles, 4, 1.5, seed=0)))


def test_too_few_patients_is_an_error_with_a_number() -> None:
    with pytest.raises(
        DataError, match=r"80 patients are too few for 30 sites of at least 4: lower data\.sites to 20"
    ):
        dirichlet(POOL, SHARES, 30, 0.5, 0)
    assert len(dirichlet(POOL, SHARES, 20, 0.01, 0)) == 20


def test_each_dataset_is_a_site() -> None:
    pool = [record(n, dataset="busi" if n < 20 else "stu") for n in range(30)]
    made = by_dataset(pool)
    assert {name: len(cases) for name, cases in made.items()} == {"busi": 20, "stu": 10}
    check_whole(made, pool)


def test_data_sets_that_share_a_picture_cannot_be_two_sites() -> None:
    pool = [
        record(n, dataset="isic2017" if n < 10 else "isic2018", cluster="x" if n in (3, 14) else "")
        for n in range(20)
    ]
    with pytest.raises(DataError, match=r"isic2017 and isic2018 share pictures \(r003 and r014 are the same\)"):
        by_dataset(pool)


def test_groups_and_a_cluster_that_has_two() -> None:
    pool = [record(n, group="benign" if n < 12 else "malignant one") for n in range(20)]
    pool[0], pool[12], pool[13] = (replace(pool[n], cluster="x") for n in (0, 12, 13))
    made = by_group(pool)
    assert {name: len(cases) for name, cases in made.items()} == {"benign": 11, "malignant_one": 9}
    check_whole(made, pool)


def test_groups_that_are_missing_or_small() -> None:
    with pytest.raises(DataError, match=r"r000\.png has no group, so data.partition=group cannot place it"):
        by_group([record(n) for n in range(20)])
    with pytest.raises(DataError, match="the site 'b' would have 3 patients, and needs 4"):
        by_group([record(n, group="a" if n < 17 else "b") for n in range(20)])


def test_a_safe_split_keeps_units_together() -> None:
    for seed in range(5):
        words = split_safe(POOL, seed, 0.15, 0.2)
        split_of = {(unit, word) for unit, word in zip(units_of(POOL), words, strict=True)}
        assert len(split_of) == len(set(units_of(POOL)))
        assert set(words) == {"train", "val", "test"}


def test_published_lists_of_three_are_kept() -> None:
    words = ["train", "val", "test", "train"] * 5
    assert split_published([record(n, published=word) for n, word in enumerate(words)], 0, 0.2) == words


def test_a_published_val_without_test_is_the_test_and_val_is_drawn_from_train() -> None:
    cases = [record(n, published="val" if n >= 20 else "train", patient=f"p{n // 2}") for n in range(30)]
    words = split_published(cases, 0, 0.2)
    assert words[20:] == ["test"] * 10
    assert Counter(words[:20]) == {"train": 16, "val": 4}
    assert all(words[n] == words[n + 1] for n in range(0, 20, 2))


def test_no_published_list() -> None:
    with pytest.raises(DataError, match=r"d has no published lists: set data\.split=safe"):
        split_published([record(0)], 0, 0.2)
