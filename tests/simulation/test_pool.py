"""The pool: which reader takes a folder, names that are unique, and twins over all data sets."""

import shutil
from pathlib import Path

import pytest

from protocol.errors import DataError, SettingsError
from simulation.pool import read_pool
from tests.client.site_folders import make_site
from tests.simulation import archives


def test_names_are_prefixed_only_where_they_collide(tmp_path: Path) -> None:
    archives.packed(tmp_path / "busi", 4)
    assert {record.name for record in read_pool(tmp_path, "auto")} == {"p000", "p001", "p002", "p003"}
    archives.packed(tmp_path / "stu_hospital_bus", 2, seed=6000)
    names = {record.name for record in read_pool(tmp_path, "auto")}
    assert names == {"busi_p000", "busi_p001", "busi_p002", "busi_p003", "stu_p000", "stu_p001"}


def test_known_twins_and_found_twins_are_joined(tmp_path: Path) -> None:
    archives.packed(tmp_path / "busi", 8)
    shutil.copy(tmp_path / "busi/images/p001.jpg", tmp_path / "busi/images/p005.jpg")
    clusters = {record.name: record.cluster for record in read_pool(tmp_path, "busi")}
    assert clusters["p000"] == clusters["p001"] == clusters["p005"] != ""
    assert clusters["p002"] == ""


def test_twins_are_found_across_data_sets(tmp_path: Path) -> None:
    archives.isic2017(tmp_path, {"Training": 4})
    archives.isic2018(tmp_path, {"Training": 6})
    records = {record.name: record for record in read_pool(tmp_path, "auto")}
    for n in range(4):
        assert records[f"isic2017_ISIC_{n:07}"].cluster == records[f"isic2018_ISIC_{n:07}"].cluster != ""
    assert records["isic2018_ISIC_0000005"].cluster == ""


def test_a_plain_folder_with_its_csv(tmp_path: Path) -> None:
    rows = "".join(f"c{n:02},p{n // 2},{'ab'[n % 2]},{'val' if n < 4 else 'train'}\n" for n in range(12))
    make_site(tmp_path / "mine", csv="name,patient,group,split\n" + rows)
    pool = read_pool(tmp_path / "mine", "auto")
    assert [(r.patient, r.group, r.published, r.labels) for r in pool[3:5]] == [
        ("p1", "b", "val", True),
        ("p2", "a", "train", True),
    ]
    with pytest.raises(SettingsError, match=r"data\.datasets = 'busi', but .* holds plain images/ and masks/"):
        read_pool(tmp_path / "mine", "busi")


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"holds no sites, no images/ and masks/, and no public data set \(busi, kvasir,"
    ):
        read_pool(tmp_path, "auto")
