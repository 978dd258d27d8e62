"""The folder of pretend sites: whole or absent, and with `sites.json` that says what it was made by."""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from client.site import read_site
from protocol.errors import DataError
from protocol.splits import SPLITS

MANIFEST = "sites.json"


def write_whole(out: Path, write: Callable[[Path], None], made_by: Mapping[str, object]) -> None:
    """Let `write` fill a sibling of `out`, then rename it: a run that is killed leaves no half of a federation.

    Args:
        made_by: the settings, kept in the manifest beside the sites' names and counts.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    try:
        part.mkdir()
        write(part)
        document = {"schema": 1, "made_by": made_by, "sites": _counts(part)}
        (part / MANIFEST).write_text(json.dumps(document, indent=1))
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def sites_made_by(out: Path, made_by: Mapping[str, object]) -> list[Path]:
    """The site folders in `out`, when they were made by just these settings.

    Raises:
        DataError: `out` holds something else, or sites made by other settings.
    """
    path = out / MANIFEST
    if not path.is_file():
        raise DataError(f"{out} exists and was not written as pretend sites: choose another folder")
    manifest = json.loads(path.read_text())
    for key, value in made_by.items():
        before = manifest["made_by"].get(key)
        if before != value:
            raise DataError(
                f"{out} holds sites made with {key} = {before!r}, not {value!r}: choose another folder or remove it"
            )
    return [out / site["name"] for site in manifest["sites"]]


def _counts(folder: Path) -> list[dict[str, object]]:
    sites: list[dict[str, object]] = []
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        # the splits stand in site.csv, so seed and shares are of no account
        site = read_site(path, seed=0, val=0.5, test=0.0)
        sites.append({"name": site.name, **{word: len(site.split(word)) for word in SPLITS}})
    return sites
