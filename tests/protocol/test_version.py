import shutil
from pathlib import Path

from protocol.settings import ROOT
from protocol.version import FOLDERS, code_digest


def copy_of_the_code(root: Path) -> Path:
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return root


def test_a_copy_is_the_same_version_and_a_changed_byte_another(tmp_path: Path) -> None:
    assert code_digest(copy_of_the_code(tmp_path / "same")) == code_digest()
    changed = copy_of_the_code(tmp_path / "changed")
    with (changed / "urwkv" / "losses.py").open("a") as file:
        file.write("\n")
    assert code_digest(changed) != code_digest()


def test_a_file_that_is_moved_is_another_version(tmp_path: Path) -> None:
    moved = copy_of_the_code(tmp_path / "moved")
    (moved / "client" / "faults.py").rename(moved / "client" / "flaws.py")
    assert code_digest(moved) != code_digest()
