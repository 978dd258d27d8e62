"""kill -9 at a real site in each phase of a private round: what is used was paid for before, always."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.settings import ROOT

KILLS = int(os.environ.get("FEDURWKV_KILLS", "20"))
"""How many; the issue of a release is checked with 100."""


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_killed_site_never_uses_what_it_has_not_paid_for(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.client.killed_site", str(tmp_path / "site"), str(KILLS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print(told)
    assert sum(told["kills"].values()) == KILLS
    assert len(told["kills"]) >= 8  # in every phase but for a race
    assert 0 < told["used"] <= told["paid"]
    assert told["sent"] > 0
