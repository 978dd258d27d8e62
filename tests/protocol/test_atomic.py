from pathlib import Path

import pytest

from protocol import atomic


def test_the_file_holds_what_was_written_and_nothing_else_is_left(tmp_path: Path) -> None:
    atomic.write_atomic(tmp_path / "a", "one")
    atomic.write_atomic(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_crash_before_the_rename_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    atomic.write_atomic(tmp_path / "a", "old")

    def crash(handle: int) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(atomic.os, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        atomic.write_atomic(tmp_path / "a", "new")
    assert (tmp_path / "a").read_text() == "old"
