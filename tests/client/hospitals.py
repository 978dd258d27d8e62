"""Hospitals for tests: real site folders with a site.yaml, in a folder whose path is short enough for a socket."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import yaml

from client.hospital import Hospital, read_hospital

WITHOUT_PRIVACY = {
    "unit": "none",
    "epsilon_study": 4.0,
    "epsilon_all": 10.0,
    "delta": 1e-5,
    "batch": 2,
    "patients": 2,
    "images": 2,
}
"""The `privacy` keys of a site.yaml that asks for no privacy, so that tiny sites may train."""


@contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder with a short path."""
    folder = Path(tempfile.mkdtemp(prefix="fu-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


PRIVACY = WITHOUT_PRIVACY | {"unit": "patient", "epsilon_study": 4.0, "epsilon_all": 4.0}
"""The same of a site that insists on privacy."""


def hospital_at(
    folder: Path, data: Path, scalars: str = "any", privacy: Mapping[str, object] = WITHOUT_PRIVACY, **words: object
) -> Hospital:
    """A hospital in `folder` whose data lies in `data`; `words` are other lines under `connection`."""
    folder.mkdir(parents=True, exist_ok=True)
    connection = {"name": data.name, "coordinator": "", "threads": 1}
    content: dict[str, object] = {"data": str(data), "device": "cpu", "privacy": dict(privacy)}
    content["allow"] = {
        **dict.fromkeys(("strategies", "code", "settings"), "any"),
        "scalars": scalars,
        "decimals": 17,
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(content | {"connection": connection | words}))
    return read_hospital(folder)
