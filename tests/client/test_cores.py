import os
from pathlib import Path

import pytest

from client import cores as module
from client.cores import cores, quotas


def control_group(root: Path, **files: str) -> None:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("_", ".", 1)).write_text(text + "\n")


def test_the_quotas_of_the_group_and_of_those_around_it_count(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("0::/hospital/job\n")
    control_group(root)
    control_group(root / "hospital", cpu_max="400000 100000")
    control_group(root / "hospital" / "job", cpu_max="max 100000")
    assert list(quotas(root, own)) == [4.0]


def test_the_first_version_of_control_groups_is_read_too(tmp_path: Path) -> None:
    root, own = tmp_path / "cgroup", tmp_path / "own"
    own.write_text("2:memory:/job\n1:cpu,cpuacct:/job\n")
    control_group(root / "cpu,cpuacct", cpu_cfs_quota_us="-1", cpu_cfs_period_us="100000")
    control_group(root / "cpu,cpuacct" / "job", cpu_cfs_quota_us="150000", cpu_cfs_period_us="100000")
    assert list(quotas(root, own)) == [1.5]


@pytest.mark.parametrize(("quota", "most"), [("50000", 1), ("150000", 1), ("900000000", 10_000)])
def test_cores_are_those_of_the_affinity_as_far_as_the_quota_pays_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, most: int
) -> None:
    (tmp_path / "own").write_text("0::/\n")
    control_group(tmp_path, cpu_max=f"{quota} 100000")
    monkeypatch.setattr(module, "CGROUPS", tmp_path)
    monkeypatch.setattr(module, "OWN_CGROUPS", tmp_path / "own")
    assert cores() == min(most, len(os.sched_getaffinity(0)))
