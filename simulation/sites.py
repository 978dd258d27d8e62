"""Pretend hospitals: from the `data.*` settings to site folders on disk, which are read like real ones."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from client.duplicates import identical_files
from client.images import read_image, read_values
from client.site import Case, Site, read_site
from protocol.errors import DataError, SettingsError
from protocol.seeds import seed_of
from protocol.settings import require
from simulation import partitions
from simulation.appearance import Appearance
from simulation.datasets import DATASETS
from simulation.datasets.folder import is_folder
from simulation.manifest import MANIFEST, sites_made_by, write_whole
from simulation.phantom_sites import phantom_names, write_phantoms
from simulation.pool import read_pool
from simulation.records import Record, in_threads, lesion_share
from simulation.writing import Row, write_site

LARGEST = 4096
"""Largest image side: a site's pictures lie in memory."""


@dataclass(frozen=True)
class DataSettings:
    """The `data.*` settings: where pictures come from and how they become sites."""

    root: str
    datasets: str
    partition: Literal["auto", "dataset", "group", "dirichlet", "quantity"]
    sites: int
    size: int
    images: int
    alpha: float
    spread: float
    appearance: float
    split: Literal["safe", "published"]
    val: float
    test: float

    def __post_init__(self) -> None:
        require(self.sites >= 1, "sites", self.sites, "at least 1")
        require(16 <= self.size <= LARGEST, "size", self.size, f"between 16 and {LARGEST} pixels")
        require(self.images >= 4, "images", self.images, "at least 4")
        require(self.alpha > 0, "alpha", self.alpha, "above 0")
        require(self.spread >= 0, "spread", self.spread, "0 (equal sizes) or more")
        require(0 <= self.appearance <= 2, "appearance", self.appearance, "between 0 (identity) and 2")
        require(0 < self.val < 1, "val", self.val, "between 0 and 1")
        require(0 < self.test < 1, "test", self.test, "between 0 and 1")
        require(self.val + self.test < 1, "val", self.val, f"below 1 - data.test = {1 - self.test:g}")


def make_sites(settings: DataSettings, seed: int, out: Path) -> list[Path]:
    """The site folders of a study, in the order of their names; written below `out` unless they exist already.

    An empty `data.root` gives phantoms; a root of site folders gives these as they are; a root with images/ and
    masks/, or with public data sets, is a pool that is divided. The folder `out` appears whole or not at all, and
    is used again by a study with the same settings and seed.

    Raises:
        SettingsError: the settings do not combine.
        DataError: pictures are missing or damaged, too few to divide, or `out` holds something else.
    """
    ready = ready_sites(settings)
    if ready:
        _check_apart([read_site(folder, seed=seed, val=settings.val, test=settings.test) for folder in ready])
        return ready
    made_by: dict[str, object] = {"seed": seed}
    made_by |= {f"data.{key}": value for key, value in dataclasses.asdict(settings).items()}
    if not out.exists():
        write_whole(out, _divided(settings, seed) if settings.root else _phantoms(settings, seed), made_by)
    return sites_made_by(out, made_by)


def _check_apart(sites: list[Site]) -> None:
    """DataError when a picture cannot be read, or lies at two sites: a patient would be trained and tested on."""
    in_threads(_decode, [case for site in sites for case in site.cases])
    paths = [(case.image, site.name) for site in sites for case in site.cases]
    holder: dict[str, tuple[Path, str]] = {}
    for (path, site), content in zip(paths, identical_files([path for path, _ in paths]), strict=True):
        other, where = holder.setdefault(content, (path, site))
        if where != site:
            raise DataError(f"{path} is the same picture as {other}: keep it at one site alone")


def _decode(case: Case) -> None:
    read_image(case.image, 3)
    read_values(case.mask)


def are_public(settings: DataSettings) -> bool:
    """Whether the pictures are generated or of a public data set, not a folder of the user's own."""
    if not settings.root:
        return True
    return not is_folder(Path(settings.root).expanduser()) and not ready_sites(settings)


def ready_sites(settings: DataSettings) -> list[Path]:
    """The sites that lie under `data.root`, none when it is anything else."""
    if not settings.root:
        return []
    root = Path(settings.root).expanduser()
    if not root.is_dir():
        raise DataError(
            f"data.root = {settings.root!r} is no folder: give the folder with sites, images or data sets"
        )
    known = {dataset.packed for dataset in DATASETS.values()} | {
        folder for dataset in DATASETS.values() for folder in dataset.original
    }
    folders = sorted(path for path in root.iterdir() if (path / "images").is_dir())
    written = (root / MANIFEST).is_file()  # by ourselves, and a site may be called like the data set that it is of
    if (
        is_folder(root)
        or settings.datasets != "auto"
        or (any(path.name in known for path in folders) and not written)
    ):
        return []
    for key, neutral in (("partition", "auto"), ("appearance", 0.0), ("split", "safe")):
        value = getattr(settings, key)
        if folders and value != neutral:
            raise SettingsError(
                f"data.{key} = {value!r}, but data.root = {settings.root!r} holds site folders, which are used as"
                f" they are: set it to {neutral!r}"
            )
    return folders


def _phantoms(settings: DataSettings, seed: int) -> Callable[[Path], None]:
    """A function that writes generated sites into a folder."""
    for key, neutral in (("datasets", "auto"), ("partition", "auto"), ("split", "safe")):
        value = getattr(settings, key)
        if value != neutral:
            raise SettingsError(
                f"data.{key} = {value!r} needs pictures: set data.root to their folder, or data.{key}={neutral} for"
                " generated phantoms"
            )

    def write(folder: Path) -> None:
        for name in phantom_names(settings.sites):
            write_phantoms(
                folder / name,
                seed,
                side=settings.size,
                images=settings.images,
                strength=settings.appearance,
                val=settings.val,
                test=settings.test,
            )

    return write


def _divided(settings: DataSettings, seed: int) -> Callable[[Path], None]:
    """A function that writes a divided pool into a folder; reading and dividing is done before it is called."""
    pool = read_pool(Path(settings.root).expanduser(), settings.datasets)
    sites = _partition(settings, pool, seed)
    words = {name: _split(settings, cases, seed_of(seed, name, "split")) for name, cases in sites.items()}

    def write(folder: Path) -> None:
        for name, cases in sites.items():
            machine = Appearance.draw(settings.appearance, seed_of(seed, name, "machine"))
            patients = _patients(cases, safe=settings.split == "safe")
            rows = [
                Row(case.name, word, patient, case.group)
                for case, word, patient in zip(cases, words[name], patients, strict=True)
            ]
            write_site(folder / name, list(zip(cases, rows, strict=True)), machine, seed)

    return write


def _partition(settings: DataSettings, pool: list[Record], seed: int) -> partitions.Sites:
    way = settings.partition
    drawn = seed_of(seed, "partition")
    if way == "auto":
        way = "dirichlet" if pool[0].labels else "dataset"
    if way == "dataset":
        return partitions.by_dataset(pool)
    if way == "group":
        return partitions.by_group(pool)
    if way == "quantity":
        return partitions.quantity(pool, settings.sites, settings.spread, drawn)
    shares = in_threads(lesion_share, pool)
    if not any(shares):
        raise DataError(f"no mask under data.root = {settings.root} has a lesion: are these the right masks?")
    return partitions.dirichlet(pool, shares, settings.sites, settings.alpha, drawn)


def _split(settings: DataSettings, cases: list[Record], seed: int) -> list[str]:
    if settings.split == "published":
        return partitions.split_published(cases, seed, settings.val)
    return partitions.split_safe(cases, seed, settings.val, settings.test)


def _patients(cases: list[Record], *, safe: bool) -> list[str]:
    """The word for each case's patient: published lists divide twins, so there only a known patient counts."""
    if not safe:
        return [case.patient for case in cases]
    return [f"patient{unit + 1:04}" for unit in partitions.units_of(cases)]
