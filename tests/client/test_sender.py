from pathlib import Path

import numpy as np
import pytest

from client.sender import ROUNDING, Sender
from protocol.codec import encode
from protocol.errors import RunError
from protocol.messages import TRAIN, Task
from protocol.packing import Schema

SCHEMA = Schema.of([("w", (4,), np.float32)])
X = SCHEMA.pack({"w": np.zeros(4, np.float32)})
Y = SCHEMA.pack({"w": np.array([1.27, -1.27, 0.014, 0.012], np.float32)})


def task(number: int, accepted: int, keep: tuple[int, ...] = ()) -> Task:
    return Task(TRAIN, number, model=X, study="s", accepted=accepted, keep=keep)


def send(state: Path, number: int, accepted: int, keep: tuple[int, ...] = ()) -> bytes:
    """What a trainer that was just started sends."""
    return Sender("int8", SCHEMA, state).encode(task(number, accepted, keep), Y)


def kept(state: Path) -> list[str]:
    return sorted(path.name for path in (state / ROUNDING).iterdir())


def test_a_round_builds_on_what_the_last_accepted_one_left_over_in_whatever_process(tmp_path: Path) -> None:
    first, left = encode("int8", SCHEMA, X, Y, None)
    second, again = encode("int8", SCHEMA, X, Y, left)
    third, _ = encode("int8", SCHEMA, X, Y, again)
    assert len({first, second, third}) == 3
    assert send(tmp_path, 1, 0) == first
    assert send(tmp_path, 2, 0) == first  # the server left round 1 out
    assert send(tmp_path, 3, 2) == second
    assert send(tmp_path, 3, 2) == second  # the same round again
    assert send(tmp_path, 4, 3) == third
    assert send(tmp_path, 3, 2) == second  # a run that was killed goes back


def test_only_what_may_still_count_stays(tmp_path: Path) -> None:
    for number in range(1, 7):
        send(tmp_path, number, number - 1, (2,))
    assert kept(tmp_path) == [f"round-000{number}.safetensors" for number in (2, 4, 5, 6)]


def test_what_is_lost_is_told_and_the_site_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = send(tmp_path, 1, 0)
    assert not caplog.records
    (tmp_path / ROUNDING / "round-0001.safetensors").unlink()
    assert send(tmp_path, 2, 1) == first
    assert f"what rounding left over in round 1 is not in {tmp_path / ROUNDING}: it is lost" in caplog.text


def test_what_is_torn_is_an_error(tmp_path: Path) -> None:
    send(tmp_path, 1, 0)
    path = tmp_path / ROUNDING / "round-0001.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(RunError, match=r"round-0001\.safetensors is torn"):
        send(tmp_path, 2, 1)


def test_nothing_is_kept_where_nothing_is_rounded(tmp_path: Path) -> None:
    for state in (tmp_path, None):
        sender = Sender("fp32", SCHEMA, state)
        assert sender.encode(task(1, 0), Y) == sender.encode(task(2, 1), Y) == Y
    assert not list(tmp_path.iterdir())


def test_rounding_needs_a_folder() -> None:
    with pytest.raises(RunError, match=r"transfer\.codec = 'bf16' has a site keep .*: name a folder for it"):
        Sender("bf16", SCHEMA, None)
