import datetime
from pathlib import Path

import pytest

from server import refusals
from server.refusals import Refusals


def test_a_refusal_is_a_line_with_its_time(tmp_path: Path) -> None:
    Refusals(tmp_path / "log").note("mercy: no")
    stamp, _, words = (tmp_path / "log").read_text().strip().partition(" ")
    age = datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(stamp)
    assert words == "refused mercy: no"
    assert abs(age.total_seconds()) < 60


def test_the_same_refusal_is_written_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1e9
    monkeypatch.setattr(refusals.time, "time", lambda: now)
    log = Refusals(tmp_path / "log")
    for words, seconds in (("one", 0), ("one", 59), ("another", 0), ("one", 2), ("one", 1)):
        now += seconds
        log.note(words)
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.rpartition(" ")[2] for line in lines] == ["one", "another", "one"]
