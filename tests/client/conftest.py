"""What the tests of a site share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.hospitals import short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    """A temporary folder with a path short enough for sockets."""
    with short_folder() as path:
        yield path
