from pathlib import Path

import numpy as np
import pytest

from client import memory as module
from client.memory import StateFolder
from protocol.errors import RunError
from strategies.local import State
from strategies.site import Memory


def state(value: float) -> State:
    return {"w": np.full((2, 3), value, np.float32), "count": np.array(7)}


def remembered(folder: Path, study: str = "study") -> Memory:
    """The memory as a process that has just started finds it."""
    return Memory(StateFolder(folder, study))


def test_what_is_written_is_read_by_the_next_process(tmp_path: Path) -> None:
    remembered(tmp_path / "state").propose(1, 0, state(1.0))
    read = remembered(tmp_path / "state").at(1)
    assert read["w"].tobytes() == state(1.0)["w"].tobytes()
    assert (read["count"].shape, read["count"]) == ((), 7)
    assert remembered(tmp_path / "state").at(0) == {}


def test_a_transposed_tensor_keeps_its_values(tmp_path: Path) -> None:
    remembered(tmp_path).propose(1, 0, {"w": np.arange(6.0).reshape(2, 3).T})
    assert remembered(tmp_path).at(1)["w"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]


def test_only_rounds_that_may_still_count_take_space(tmp_path: Path) -> None:
    for number in range(1, 9):
        remembered(tmp_path).propose(number, number - 1, state(number), keep=[3] if number > 3 else [])
    names = [f"round-000{number}.safetensors" for number in (3, 6, 7, 8)]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


@pytest.mark.parametrize("moment", range(4))
def test_a_kill_at_any_moment_of_a_proposal_leaves_what_the_server_counts_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    """Before the new state is written, after it, and before each of the old ones goes."""
    for number in (1, 2, 3):
        remembered(tmp_path).propose(number, number - 1, state(number))
    remembered(tmp_path).propose(4, 3, state(4.0), keep=[1])
    calls = 0

    class Killed(BaseException):
        pass

    def count_down() -> None:
        nonlocal calls
        calls += 1
        if calls > moment:
            raise Killed

    write, unlink = module.write_atomic, Path.unlink
    monkeypatch.setattr(module, "write_atomic", lambda *a: (count_down(), write(*a), count_down()))
    monkeypatch.setattr(Path, "unlink", lambda *a, **k: (count_down(), unlink(*a, **k)))
    with pytest.raises(Killed):
        remembered(tmp_path).propose(6, 4, state(6.0))
    monkeypatch.undo()
    for counted in (3, 4):
        assert remembered(tmp_path).at(counted)["w"][0, 0] == counted
    remembered(tmp_path).propose(6, 4, state(6.5))
    assert remembered(tmp_path).at(6)["w"][0, 0] == 6.5
    assert sorted(StateFolder(tmp_path, "study")) == [3, 4, 6]


def test_a_kill_while_a_file_is_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered(tmp_path).propose(1, 0, state(1.0))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        remembered(tmp_path).propose(1, 0, state(2.0))
    assert remembered(tmp_path).at(1)["w"][0, 0] == 1.0


@pytest.mark.parametrize("spoilt", [-1, 100])
def test_a_torn_state_is_named_with_the_cure(tmp_path: Path, spoilt: int) -> None:
    remembered(tmp_path).propose(1, 0, state(1.0))
    path = tmp_path / "round-0001.safetensors"
    data = bytearray(path.read_bytes())
    data[spoilt] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"round-0001\.safetensors is torn.*from a copy, or begin the study anew"):
        remembered(tmp_path).at(1)


def test_half_a_file_is_torn(tmp_path: Path) -> None:
    remembered(tmp_path).propose(1, 0, state(1.0))
    path = tmp_path / "round-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(RunError, match="is torn"):
        remembered(tmp_path).at(1)


def test_two_studies_do_not_mix(tmp_path: Path) -> None:
    remembered(tmp_path, "one").propose(1, 0, state(1.0))
    for number in (0, 1):
        with pytest.raises(RunError, match="belongs to another study: give this one a folder of its own"):
            remembered(tmp_path, "other").at(number)


def test_a_state_that_is_gone_is_an_error_and_not_a_beginning(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"reply of round 5, but the site remembers rounds 0: put its state back"):
        remembered(tmp_path).at(5)
