"""Real public images for the tests that want them; these skip where there are none."""

import os
from pathlib import Path

import pytest

ROOT = Path(os.environ.get("FEDURWKV_DATA") or Path(__file__).resolve().parents[3] / "shared" / "data")


def public(folder: str) -> Path:
    """The folder of one packed data set; the test is skipped where it is missing."""
    if not (ROOT / folder / "meta.csv").is_file():
        pytest.skip(f"no real images: {ROOT / folder} is missing (FEDURWKV_DATA names the folder)")
    return ROOT / folder
