"""Runs of one seed start alike and may do as much; they differ in what is theirs alone."""

from pathlib import Path

import numpy as np
import pytest

from protocol.errors import SettingsError
from protocol.settings import section
from server.app import initial_model
from simulation.compare.contestants import check_jobs, jobs_of
from simulation.compare.folders import read_shared, same_hospitals, share
from simulation.compare.words import Plan, Words, plan_of
from simulation.sites import DataSettings, ready_sites
from tests.client.phantoms import SMALL, small, small_sites

SETS = [f"{key}={value}" for key, value in SMALL.items()]
MAY_DIFFER = ("strategy.", "train.lr", "train.optimizer", "federation.strategy", "federation.quorum")
MAY_DIFFER += ("federation.fraction", "data.root", "data.split", "data.appearance", "report.overlays")


def plan(**words: object) -> Plan:
    return plan_of(Words(sets=SETS, **words))  # type: ignore[arg-type]


@pytest.mark.slow
def test_all_runs_of_a_seed_share_weights_sites_splits_and_steps(tmp_path: Path) -> None:
    asked = plan(
        strategies="fedavg,scaffold",
        seeds=2,
        baselines="local,central",
        own=["scaffold:train.optimizer=sgd,train.lr=0.05"],
    )
    starts = []
    for seed in asked.all_seeds:
        shared = share(tmp_path, asked.table, seed, alone=True, pooled=True)
        jobs = [job for name in asked.trained for job in jobs_of(asked, name, shared, {}, tmp_path)]
        assert [job.name for job in jobs] == [
            f"fedavg-seed{seed}",
            f"scaffold-seed{seed}",
            *(f"local-{site}-seed{seed}" for site in shared.names),
            f"central-seed{seed}",
        ]
        check_jobs(asked, jobs, {seed: 2})
        first = jobs[0].table
        for job in jobs:
            for key in first.keys() | job.table.keys():
                if not key.startswith(MAY_DIFFER):
                    assert job.table[key] == first[key], (job.name, key)
            for name, array in initial_model(job.table).items():
                np.testing.assert_array_equal(array, initial_model(first)[name])
        assert jobs[0].sites == jobs[1].sites == shared.sites[0].parent
        starts.append(initial_model(first)["head.weight"])
        known = {site.name: site for site in read_shared(shared, asked.table)}
        for name, root in shared.alone.items():
            (alone,) = (path for path in root.iterdir() if path.is_dir())
            assert alone.resolve() == known[name].folder.resolve()
        (pooled,) = (path for path in shared.pooled.iterdir() if path.is_dir())
        rows = (pooled / "site.csv").read_text().splitlines()[1:]
        assert len(rows) == sum(len(site.cases) for site in known.values())
        for split in ("train", "val", "test"):
            count = sum(len(site.split(split)) for site in known.values())
            assert sum(row.split(",")[1] == split for row in rows) == count
    assert not np.array_equal(*starts)  # another seed is another start


def test_a_contestants_own_settings_are_checked_by_name(tmp_path: Path) -> None:
    asked = plan(strategies="fedavg,scaffold")
    shared = share(tmp_path, asked.table, 0, alone=False, pooled=False)
    jobs = [job for name in asked.trained for job in jobs_of(asked, name, shared, {}, tmp_path)]
    with pytest.raises(SettingsError, match=r"scaffold: train\.optimizer = 'adamw'.*--for scaffold:KEY=VALUE"):
        check_jobs(asked, jobs, {0: 2})


def test_phantoms_are_other_hospitals_in_every_seed_and_folders_the_same(tmp_path: Path) -> None:
    table = small()
    seeds = [share(tmp_path, table, seed, alone=False, pooled=False) for seed in (0, 1)]
    assert not same_hospitals(seeds, table)
    own = small(data_root=str(seeds[0].sites[0].parent))
    again = [share(tmp_path / "own", own, seed, alone=False, pooled=False) for seed in (0, 1)]
    assert again[0].ready
    assert again[0].sites == again[1].sites
    assert same_hospitals(again, own)


def test_sites_that_were_written_may_be_called_like_a_data_set(tmp_path: Path) -> None:
    sites = small_sites(tmp_path, small())
    root = sites[0].parent
    sites[0].rename(root / "busi")
    settings = small(data_root=str(root))

    data = section(settings, "data", DataSettings)
    assert root / "busi" in ready_sites(data)
    (root / "sites.json").unlink()
    assert ready_sites(data) == []  # the packed data set busi
