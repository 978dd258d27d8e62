"""What the tests of a site share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import flower
from tests.client.hospitals import short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for sockets."""
    with short_folder() as path:
        yield path


@pytest.fixture
def own_user(monkeypatch: pytest.MonkeyPatch) -> None:
    """The site's user is no root, and nobody starts programs for it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(flower, "SERVANTS", ())
