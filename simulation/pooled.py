"""All sites' images in one site: the centralised twin of a federation."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from client.site import Case, Site
from protocol.errors import DataError
from simulation.manifest import sites_made_by, write_whole
from simulation.writing import Row, write_csv

NAME = "pooled"


def pool_sites(sites: Sequence[Site], out: Path, made_by: Mapping[str, object]) -> Path:
    """Write one site folder below `out` with the cases of all sites, their splits and patients kept apart.

    Args:
        out: a folder that appears whole or not at all, and is used again when it was made by the same.
        made_by: what decides the sites, for the manifest.

    Returns:
        The site folder.

    Raises:
        DataError: `out` holds something else, or two cases would get one name.
    """

    def write(folder: Path) -> None:
        pooled = folder / NAME
        (pooled / "images").mkdir(parents=True)
        (pooled / "masks").mkdir()
        rows, names = [], set[str]()
        for site in sites:
            for case in site.cases:
                name = f"{site.name}-{case.name}"
                if name in names:
                    raise DataError(f"two cases are called {name} when sites are pooled: rename the site {site.name}")
                names.add(name)
                shutil.copyfile(case.image, pooled / "images" / f"{name}{case.image.suffix}")
                shutil.copyfile(case.mask, pooled / "masks" / f"{name}.png")
                rows.append(Row(name, case.split, _patient(site, case), case.group))
        write_csv(pooled / "site.csv", rows)

    if not out.exists():
        write_whole(out, write, made_by)
    (pooled,) = sites_made_by(out, made_by)
    return pooled


def _patient(site: Site, case: Case) -> str:
    """Patients of two sites are two, whatever they are called."""
    return f"{site.name}-{case.patient}"
