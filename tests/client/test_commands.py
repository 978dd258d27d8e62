"""`fedurwkv site check`, as a user types it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from client.commands import site
from protocol.errors import SettingsError
from tests.client.site_folders import make_site


def check(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(site, ["check", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_a_sound_site_is_counted(tmp_path: Path) -> None:
    code, output = check(str(make_site(tmp_path / "north", cases=20)))
    assert code == 0
    assert output.splitlines() == [
        "north: 20 cases, 13 train, 3 val, 4 test (dealt by patient)",
        "no faults: ready for training",
    ]


def test_a_fault_makes_exit_code_1(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "north", cases=20)
    Image.fromarray(np.full((24, 24), 7, np.uint8)).save(folder / "masks/c04.png")
    Image.fromarray(np.full((24, 24), 255, np.uint8)).save(folder / "masks/c05.png")
    code, output = check(str(folder))
    assert code == 1
    assert output.splitlines() == [
        f"fault  {folder}/masks/c04.png has the label 7, but model.num_classes = 1 allows 0 to 1: correct the mask or"
        " the setting",
        "note   0 and 255 in 1 mask (c05): read as 0 and 1",
        "north: 20 cases, 13 train, 3 val, 4 test (dealt by patient)",
        "faults found: correct them before training",
    ]


def test_settings_of_the_study_count(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "north", cases=20)
    assert "10 train, 6 val, 4 test" in check(str(folder), "--set", "data.val=0.3")[1]
    with pytest.raises(SettingsError, match=r"data\.vall.*data\.val"):
        check(str(folder), "--set", "data.vall=0.3")


def test_the_help_needs_no_heavy_library() -> None:
    code = "import sys, client.commands; print([m for m in ('torch', 'numpy', 'PIL', 'cv2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
