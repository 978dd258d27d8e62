"""One site of all sites' images."""

from dataclasses import replace
from pathlib import Path

import pytest

from client.site import read_site
from protocol.errors import DataError
from simulation.pooled import pool_sites
from tests.client.phantoms import small, small_sites


def test_cases_keep_split_patient_and_pixels(tmp_path: Path) -> None:
    sites = [read_site(folder, seed=0, val=0.15, test=0.2) for folder in small_sites(tmp_path, small())]
    pooled = read_site(pool_sites(sites, tmp_path / "pooled", {"seed": 0}), seed=5, val=0.5, test=0.1)
    assert pooled.own_split
    cases = {case.name: case for case in pooled.cases}
    assert len(cases) == sum(len(site.cases) for site in sites)
    for site in sites:
        for case in site.cases:
            twin = cases[f"{site.name}-{case.name}"]
            assert (twin.split, twin.patient) == (case.split, f"{site.name}-{case.patient}")
            assert twin.image.read_bytes() == case.image.read_bytes()
            assert twin.mask.read_bytes() == case.mask.read_bytes()
    assert pool_sites(sites, tmp_path / "pooled", {"seed": 0}) == tmp_path / "pooled" / "pooled"
    with pytest.raises(DataError, match="made with seed = 0, not 1"):
        pool_sites(sites, tmp_path / "pooled", {"seed": 1})


def test_two_cases_of_one_pooled_name_are_refused(tmp_path: Path) -> None:
    """The case b-c of site a, and the case c of site a-b: one would overwrite the other."""
    one, other = (read_site(folder, seed=0, val=0.15, test=0.2) for folder in small_sites(tmp_path, small())[:2])
    sites = [
        replace(one, name="a", cases=(replace(one.cases[0], name="b-c"),)),
        replace(other, name="a-b", cases=(replace(other.cases[0], name="c"),)),
    ]
    with pytest.raises(DataError, match="two cases are called a-b-c when sites are pooled: rename the site a-b"):
        pool_sites(sites, tmp_path / "pooled", {"seed": 0})
    assert not (tmp_path / "pooled").exists()
