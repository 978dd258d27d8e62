import subprocess
import sys
from pathlib import Path

import pytest

from client.app import simulated_site
from protocol.errors import RunError
from protocol.settings import ROOT


def test_the_courier_imports_no_torch() -> None:
    code = "import sys, client.app; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def test_sites_are_numbered_by_name(tmp_path: Path) -> None:
    for name in ("b", "a"):
        (tmp_path / name / "images").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert simulated_site({"run.sites": str(tmp_path)}, 1).name == "b"
    with pytest.raises(RunError, match="holds 2 site folders"):
        simulated_site({"run.sites": str(tmp_path)}, 2)
