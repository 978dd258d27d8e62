import contextlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from protocol.errors import RunError
from server import journal as module
from server.journal import Journal, State, read_state


def state(round_number: int) -> State:
    model = {"w": np.full((2, 2), round_number, np.float32), "count": np.array(round_number)}
    return State(settings={"seed": 1}, model=model, round=round_number, best=model, best_round=round_number)


def test_what_is_written_is_read(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(state(1))
    read = journal.read()
    assert read.model["w"].tobytes() == state(1).model["w"].tobytes()
    assert (read.model["count"].shape, read.model["count"]) == ((), 1)
    assert (read.round, read.best_round, read.settings, read.strategy) == (1, 1, {"seed": 1}, {})


def test_the_newest_and_the_one_before_are_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for number in (1, 2, 3):
        journal.write(state(number))
    assert sorted(p.name for p in journal.folder.iterdir()) == ["latest", "round-0002", "round-0003"]
    assert read_state(tmp_path)["round"] == 3


@pytest.mark.parametrize("step", range(13))
def test_a_kill_at_any_moment_of_a_write_leaves_a_whole_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Every file operation of a write is a moment to die; the journal then reads the old state or the new one."""
    journal = Journal(tmp_path)
    journal.write(state(1))
    calls = 0

    class Killed(BaseException):
        pass

    def count_down(*_: object, **__: object) -> None:
        nonlocal calls
        calls += 1
        if calls > step:
            raise Killed

    rmtree, sync, write_atomic = shutil.rmtree, module.sync_folder, module.write_atomic
    monkeypatch.setattr(module.shutil, "rmtree", lambda *a, **k: (count_down(), rmtree(*a, **k)))
    monkeypatch.setattr(module, "sync_folder", lambda *a: (count_down(), sync(*a)))
    monkeypatch.setattr(module, "write_atomic", lambda *a: (count_down(), write_atomic(*a), count_down()))
    with contextlib.suppress(Killed):
        journal.write(state(2))
    assert calls > step, "there are fewer moments than this test has steps"
    monkeypatch.undo()
    assert Journal(tmp_path).read().round in (1, 2)
    Journal(tmp_path).write(state(2))
    Journal(tmp_path).write(state(3))
    assert Journal(tmp_path).read().round == 3


def test_no_checkpoint_is_said(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no checkpoint"):
        Journal(tmp_path).read()


def test_a_torn_file_is_named_with_the_way_back(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(state(1))
    journal.write(state(2))
    path = journal.folder / "round-0002" / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"model\.safetensors is torn.*writing round-0001 into .*latest"):
        journal.read()
    (journal.folder / "latest").write_text("round-0001")
    assert journal.read().round == 1


def test_another_versions_checkpoint_is_refused(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(state(1))
    path = journal.folder / "round-0001" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    with pytest.raises(RunError, match="another version"):
        journal.read()
