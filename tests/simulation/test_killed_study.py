"""kill -9 of a whole private study at random moments."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from protocol.settings import ROOT

KILLS = int(os.environ.get("FEDURWKV_KILLS", "20"))


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * KILLS)
def test_a_killed_study_has_paid_for_all_that_it_released_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.simulation.killed_study", str(tmp_path / "study"), str(KILLS)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout)
    print(told)
    assert sum(told["kills_by_rounds_on_disk"].values()) == KILLS
    assert len(told["kills_by_rounds_on_disk"]) >= 3
    assert told["finished"] > 0
