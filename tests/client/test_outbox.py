from dataclasses import replace
from pathlib import Path

import pytest

from client.outbox import Outbox
from protocol.errors import RunError
from protocol.messages import TRAIN, Reply, Task

TASK = Task(TRAIN, 3, "schema", b"global", "val", study="s", accepted=2, received_schema="r", received=b"beside")
REPLY = Reply("site", 3, "schema", b"local", {"train.images": 5.0, "epsilon": 1.25})


def numbers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_very_same_task_gets_the_very_same_reply_in_another_process(tmp_path: Path) -> None:
    Outbox(tmp_path / "state", "terms").keep(TASK, REPLY)
    assert Outbox(tmp_path / "state", "terms").find(TASK) == REPLY
    assert Outbox(tmp_path / "state", "terms").last_asked() == b"global"
    assert Outbox(tmp_path / "state", "terms").find(replace(TASK, keep=(1, 2))) == REPLY  # keep says what to remember


@pytest.mark.parametrize(
    "changed",
    [
        {"round": 4},
        {"study": "t"},
        {"model": b"Global"},
        {"received": b"Beside"},
        {"accepted": 1},
        {"split": ""},
        {"schema": "other"},
    ],
)
def test_another_task_gets_none(tmp_path: Path, changed: dict[str, object]) -> None:
    outbox = Outbox(tmp_path, "terms")
    outbox.keep(TASK, REPLY)
    assert outbox.find(replace(TASK, **changed)) is None  # type: ignore[arg-type]


def test_a_reply_that_was_made_under_other_terms_is_not_sent_again(tmp_path: Path) -> None:
    Outbox(tmp_path, "exact").keep(TASK, REPLY)
    assert Outbox(tmp_path, "with noise").find(TASK) is None
    assert Outbox(tmp_path, "with noise").last_asked() == b"global"


def test_the_two_newest_are_kept_and_none_of_a_future_gone_by(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "terms")
    for number in (1, 3, 4, 7):
        outbox.keep(replace(TASK, round=number, model=bytes([number])), replace(REPLY, round=number))
    assert numbers(tmp_path) == ["reply-0004.safetensors", "reply-0007.safetensors"]
    assert outbox.last_asked() == b"\x07"
    outbox.keep(replace(TASK, round=5), replace(REPLY, round=5))
    assert numbers(tmp_path) == ["reply-0004.safetensors", "reply-0005.safetensors"]


def test_before_the_first_there_is_none(tmp_path: Path) -> None:
    assert Outbox(tmp_path / "none", "terms").find(TASK) is None
    assert Outbox(tmp_path / "none", "terms").last_asked() is None


def test_a_torn_one_is_an_error_with_the_cure(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path, "terms")
    outbox.keep(TASK, REPLY)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for spoilt in (whole[:-1], whole.replace(b"local", b"Local")):
        path.write_bytes(spoilt)
        with pytest.raises(RunError, match=r"reply-0003\.safetensors is torn.*delete it, and the round is trained"):
            outbox.find(TASK)
