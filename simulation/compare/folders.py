"""The site folders of each seed, made once and shared by all runs: as they are, each alone, and pooled."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from client.site import Site, read_site
from protocol.errors import DataError
from protocol.settings import Table, section
from simulation.manifest import write_whole
from simulation.pooled import pool_sites
from simulation.sites import DataSettings, make_sites, ready_sites


@dataclass(frozen=True)
class Shared:
    """The sites of one seed.

    Attributes:
        seed: which.
        sites: the folders, in the order of their names.
        ready: whether they are the user's own, used where they lie.
        alone: for each site a folder that holds it alone.
        pooled: a folder that holds all sites' images as one site.
    """

    seed: int
    sites: tuple[Path, ...]
    ready: bool
    alone: Mapping[str, Path]
    pooled: Path

    @property
    def names(self) -> list[str]:
        """The sites' names."""
        return [site.name for site in self.sites]


def share(folder: Path, table: Table, seed: int, *, alone: bool, pooled: bool) -> Shared:
    """The sites of `seed` below `folder`; what is there already is used again.

    Args:
        alone: whether each site is needed by itself.
        pooled: whether the pooled site is needed.

    Raises:
        DataError: the data is wrong, a site that is to be alone cannot be tested, or a folder was made by other
            settings.
    """
    settings = section(table, "data", DataSettings)
    sites = make_sites(settings, seed, folder / "sites" / f"seed{seed}")
    made_by = {"seed": seed, "sites": str(sites[0].parent.resolve())}
    shared = Shared(
        seed,
        tuple(sites),
        bool(ready_sites(settings)),
        {site.name: folder / "alone" / f"seed{seed}" / site.name for site in sites},
        folder / "pooled" / f"seed{seed}",
    )
    known = read_shared(shared, table)
    for site, path in zip(known, sites, strict=True):
        if alone and not site.split("test"):
            raise DataError(
                f"{path} has no test images, so its local model cannot be tested: raise data.test, or leave out the"
                " baselines local and ensemble"
            )
        if alone and not shared.alone[site.name].exists():
            _set_apart(path, shared.alone[site.name], made_by)
    if pooled:
        pool_sites(known, shared.pooled, made_by)
    return shared


def read_shared(shared: Shared, table: Table) -> list[Site]:
    """The sites of a seed, split as that seed splits them."""
    val, test = float(table["data.val"]), float(table["data.test"])
    return [read_site(path, seed=shared.seed, val=val, test=test) for path in shared.sites]


def same_hospitals(seeds: Sequence[Shared], table: Table) -> bool:
    """Whether a site is the same hospital in every seed: of the same name and pictures, however they are split.

    Phantoms have the same names in every seed, but each seed draws them anew.
    """
    pictures = [
        {site.name: {case.name for case in site.cases} for site in read_shared(shared, table)} for shared in seeds
    ]
    return bool(table["data.root"]) and all(one == pictures[0] for one in pictures)


def _set_apart(site: Path, root: Path, made_by: Mapping[str, object]) -> None:
    def write(folder: Path) -> None:
        (folder / site.name).symlink_to(site.resolve(), target_is_directory=True)

    write_whole(root, write, made_by)
