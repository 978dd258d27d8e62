"""Pretend sites on disk: what each kind of root becomes, that nobody is divided, and errors that teach."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from client.check import check_site
from client.site import Case, Site, read_site
from protocol.errors import DataError, SettingsError
from protocol.settings import Value, resolve, section
from simulation.sites import DataSettings, are_public, make_sites
from tests.client.site_folders import make_site
from tests.simulation import archives
from tests.simulation.public_data import ROOT, public


def settings(**values: Value) -> DataSettings:
    small = {"data.size": 32, "data.images": 12}
    return section(resolve(small, {f"data.{key}": value for key, value in values.items()}), "data", DataSettings)


def read(folders: list[Path]) -> list[Site]:
    # other shares than those that the sites were made with: the splits stand in site.csv
    return [read_site(folder, seed=99, val=0.5, test=0.1) for folder in folders]


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()}


def cases_of(sites: list[Site]) -> list[Case]:
    return [case for site in sites for case in site.cases]


def test_phantoms_out_of_the_box(tmp_path: Path) -> None:
    folders = make_sites(settings(), 0, tmp_path / "out")
    assert [folder.name for folder in folders] == [
        "site1-ultrasound",
        "site2-endoscopy",
        "site3-dermoscopy",
        "site4-ultrasound",
    ]
    for site in read(folders):
        assert len(site.cases) == 12
        assert site.own_split
        assert all(site.split(word) for word in ("train", "val", "test"))
        assert 4 <= len({case.patient for case in site.cases}) < 12
    with Image.open(folders[0] / "images/case0001.png") as first:
        assert first.size == (32, 32)


def test_the_seed_decides_every_file(tmp_path: Path) -> None:
    make_sites(settings(sites=2), 0, tmp_path / "a")
    make_sites(settings(sites=2), 0, tmp_path / "b")
    make_sites(settings(sites=2), 1, tmp_path / "c")
    assert files(tmp_path / "a") == files(tmp_path / "b")
    name = "site1-ultrasound/images/case0001.png"
    assert files(tmp_path / "a")[name] != files(tmp_path / "c")[name]


def test_a_finished_folder_is_used_again_only_for_the_same_settings(tmp_path: Path) -> None:
    folders = make_sites(settings(), 0, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert make_sites(settings(), 0, tmp_path / "out") == folders
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    with pytest.raises(DataError, match=r"holds sites made with data\.images = 12, not 13: choose another folder"):
        make_sites(settings(images=13), 0, tmp_path / "out")
    with pytest.raises(DataError, match="holds sites made with seed = 0, not 1"):
        make_sites(settings(), 1, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    with pytest.raises(DataError, match="exists and was not written as pretend sites"):
        make_sites(settings(), 0, tmp_path / "mine")


def test_an_interrupted_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulation.phantom_sites.write_csv", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        make_sites(settings(), 0, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_site_folders_are_used_as_they_are(tmp_path: Path) -> None:
    for number, name in enumerate(("north", "south")):
        make_site(tmp_path / "root" / name, first=100 * number)
    (tmp_path / "root/notes").mkdir()
    made = make_sites(settings(root=str(tmp_path / "root")), 0, tmp_path / "out")
    assert made == [tmp_path / "root/north", tmp_path / "root/south"]
    assert not (tmp_path / "out").exists()
    (tmp_path / "root/south/masks/c03.png").unlink()
    with pytest.raises(DataError, match=r"south/images/c03\.png has no mask"):
        make_sites(settings(root=str(tmp_path / "root")), 0, tmp_path / "out")


def test_a_plain_folder_is_one_pool(tmp_path: Path) -> None:
    rows = "".join(f"c{n:02},p{n // 2},{'ab'[n // 20]}\n" for n in range(40))
    make_site(tmp_path / "mine", cases=40, csv="name,patient,group\n" + rows)
    Image.fromarray(np.full((24, 24), 3, np.uint8)).save(tmp_path / "mine/masks/c05.png")
    sites = read(make_sites(settings(root=str(tmp_path / "mine"), sites=3), 0, tmp_path / "out"))
    assert [site.name for site in sites] == ["site1", "site2", "site3"]
    originals = files(tmp_path / "mine")
    assert sorted(case.name for case in cases_of(sites)) == [f"c{n:02}" for n in range(40)]
    for case in cases_of(sites):
        assert case.image.read_bytes() == originals[f"images/{case.name}.png"]
        assert case.mask.read_bytes() == originals[f"masks/{case.name}.png"]
    for site in sites:
        numbers = {int(case.name[1:]) for case in site.cases}
        assert numbers == {n ^ 1 for n in numbers}  # both pictures of each patient
    grouped = read(make_sites(settings(root=str(tmp_path / "mine"), partition="group"), 0, tmp_path / "g"))
    assert {site.name: len(site.cases) for site in grouped} == {"a": 20, "b": 20}


def test_data_sets_become_a_site_each(tmp_path: Path) -> None:
    archives.busi(tmp_path / "root", 8)
    archives.kvasir(tmp_path / "root", 9)
    archives.packed(tmp_path / "root/stu_hospital_bus", 10)
    root = str(tmp_path / "root")
    sites = read(make_sites(settings(root=root), 0, tmp_path / "out"))
    assert {site.name: len(site.cases) for site in sites} == {"busi": 16, "kvasir": 9, "stu": 10}
    named = make_sites(settings(root=root, datasets="busi,stu"), 0, tmp_path / "two")
    assert [folder.name for folder in named] == ["busi", "stu"]
    mixed = read(make_sites(settings(root=root, partition="quantity", sites=2), 0, tmp_path / "mixed"))
    assert sum(len(site.cases) for site in mixed) == 35


def test_jpeg_masks_become_labels_and_pictures_stay_as_they_are(tmp_path: Path) -> None:
    archives.kvasir(tmp_path / "root")
    sites = read(make_sites(settings(root=str(tmp_path / "root")), 0, tmp_path / "out"))
    for case in sites[0].cases:
        original = tmp_path / "root/Kvasir-SEG"
        assert case.image.read_bytes() == (original / f"images/{case.name}.jpg").read_bytes()
        with Image.open(case.mask) as mask, Image.open(original / f"masks/{case.name}.jpg") as drawn:
            assert np.array_equal(np.asarray(mask), np.asarray(drawn.convert("L")) > 127)


def test_an_appearance_changes_pictures_alone(tmp_path: Path) -> None:
    archives.packed(tmp_path / "root/busi")
    root = str(tmp_path / "root")
    plain = read(make_sites(settings(root=root, appearance=0.0), 0, tmp_path / "plain"))
    shifted = read(make_sites(settings(root=root, appearance=1.0), 0, tmp_path / "shifted"))
    for one, other in zip(cases_of(plain), cases_of(shifted), strict=True):
        assert (one.name, one.split, one.mask.read_bytes()) == (other.name, other.split, other.mask.read_bytes())
        assert other.image.suffix == ".png"
        before, after = (np.asarray(Image.open(path).convert("RGB"), int) for path in (one.image, other.image))
        assert np.abs(before - after).mean() > 2


def test_published_lists(tmp_path: Path) -> None:
    archives.packed(tmp_path / "root/busi", 40)
    made = make_sites(settings(root=str(tmp_path / "root"), split="published"), 0, tmp_path / "out")
    for case in read(made)[0].cases:
        assert (case.split == "test") == (int(case.name[1:]) % 4 == 3)


def wide(root: Path) -> None:
    archives.packed(root / "busi", 40)


def folder_of_sites(root: Path) -> None:
    make_site(root / "north")


def nothing(root: Path) -> None:
    root.mkdir()


@pytest.mark.parametrize(
    ("prepare", "values", "words"),
    [
        (None, {"datasets": "busi"}, r"data\.datasets = 'busi' needs pictures: set data\.root"),
        (None, {"partition": "dirichlet"}, r"data\.partition = 'dirichlet' needs pictures"),
        (None, {"split": "published"}, r"data\.split = 'published' needs pictures"),
        (folder_of_sites, {"partition": "group"}, r"data\.partition = 'group', but .* holds site folders"),
        (folder_of_sites, {"appearance": 0.5}, r"data\.appearance = 0.5, but .*: set it to 0\.0"),
        (folder_of_sites, {"datasets": "busi"}, "BUSI, breast ultrasound, is not under data.root"),
        (nothing, {}, "holds no sites, no images/ and masks/, and no public data set"),
        (lambda root: None, {}, "is no folder: give the folder with sites, images or data sets"),
        (wide, {"partition": "dirichlet", "sites": 11}, "too few for 11 sites"),
        (wide, {"datasets": "kvasr"}, "did you mean 'kvasir'"),
        (lambda root: archives.kvasir(root), {"split": "published"}, "kvasir has no published lists"),
    ],
)
def test_impossible_settings_teach(
    tmp_path: Path, prepare: Callable[[Path], None] | None, values: dict[str, Value], words: str
) -> None:
    if prepare:
        prepare(tmp_path / "root")
        values = {"root": str(tmp_path / "root"), **values}
    with pytest.raises((SettingsError, DataError), match=words) as error:
        make_sites(settings(**values), 0, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        *(("sites", 0), ("size", 8), ("images", 3), ("alpha", 0.0), ("spread", -1.0), ("appearance", 3.0)),
        *(("val", 0.0), ("val", 0.9), ("test", 1.0), ("partition", "dirichlett"), ("split", "public")),
    ],
)
def test_ranges(key: str, value: Value) -> None:
    with pytest.raises(SettingsError, match=f"data.{key} = {value!r}|data.val"):
        settings(**{key: value})


@pytest.mark.parametrize("seed", [0, 1])
def test_real_ultrasound_with_its_twins(tmp_path: Path, seed: int) -> None:
    """No listed or visible twin of BUSI lies on two sites or in two splits."""
    public("busi")
    made = make_sites(settings(root=str(ROOT), datasets="busi", partition="dirichlet"), seed, tmp_path / "out")
    assert sum(len(site.cases) for site in read(made)) == 647
    where = {case.name: (site.name, case.split) for site in read(made) for case in site.cases}
    clusters: dict[str, set[tuple[str, str]]] = {}
    for line in (ROOT / "busi/near_duplicates.csv").read_text().splitlines()[1:]:
        name, cluster = line.split(",")
        clusters.setdefault(cluster, set()).add(where[name])
    assert all(len(places) == 1 for places in clusters.values())
    for folder in made:
        findings, _ = check_site(folder, seed=0, val=0.2, test=0.2, in_channels=3, num_classes=1)
        assert not [finding.text for finding in findings if finding.fault]


def test_the_manifest_says_what_the_sites_were_made_by(tmp_path: Path) -> None:
    make_sites(settings(sites=1), 7, tmp_path / "out")
    manifest = json.loads((tmp_path / "out/sites.json").read_text())
    assert manifest["made_by"]["seed"] == 7
    assert manifest["made_by"]["data.images"] == 12
    assert [site["name"] for site in manifest["sites"]] == ["site1-ultrasound"]
    assert sum(manifest["sites"][0][word] for word in ("train", "val", "test")) == 12


def test_one_picture_at_two_sites_is_refused(tmp_path: Path) -> None:
    make_site(tmp_path / "root" / "north")
    make_site(tmp_path / "root" / "south", first=11)
    with pytest.raises(
        DataError, match=r"south/images/c00\.png is the same picture as .*north/images/c11\.png: keep"
    ):
        make_sites(settings(root=str(tmp_path / "root")), 0, tmp_path / "out")


def test_phantoms_are_public_and_folders_of_ones_own_are_not(tmp_path: Path) -> None:
    for folder in ("pool/images", "pool/masks", "sites/a/images", "sites/a/masks"):
        (tmp_path / folder).mkdir(parents=True)
    assert are_public(settings())
    assert not are_public(settings(root=str(tmp_path / "pool")))
    assert not are_public(settings(root=str(tmp_path / "sites")))


def test_data_sets_are_public() -> None:
    assert are_public(settings(root=str(public("busi").parent)))
