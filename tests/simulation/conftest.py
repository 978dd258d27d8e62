from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.settings import Table
from tests.client.phantoms import small_sites


@pytest.fixture(scope="session")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Table], list[Path]]:
    """The site folders of a tiny study's table, made once for all that ask for the same."""
    root = tmp_path_factory.mktemp("sites")
    return lambda table: small_sites(root / f"{table['data.sites']}-of-{table['data.size']}", table)
