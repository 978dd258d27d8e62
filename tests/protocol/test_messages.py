import pytest
from flwr.app import ConfigRecord, RecordDict

from protocol.messages import Reply, Task, read_reply, read_task, reply_content, task_contents


def test_a_task_survives_flowers_records() -> None:
    task = Task("train", 3, "abc", b"\x00model\xff", "val", {"seed": 1}, "study", 2, (1, 2), "def", b"beside\x00")
    (content,) = task_contents([task])
    assert read_task("train", content, {"seed": 1}) == task


def test_a_task_that_keeps_nothing_survives_too() -> None:
    (content,) = task_contents([Task("evaluate", 3)])
    assert read_task("evaluate", content, {}) == Task("evaluate", 3)


def test_what_several_tasks_carry_is_one_array() -> None:
    north, south = Task("train", 3, model=b"model", accepted=1), Task("train", 3, model=b"model", accepted=2)
    other = Task("train", 3, model=b"other")
    contents = task_contents([north, south, other])
    assert contents[0]["model"] is contents[1]["model"]
    assert [read_task("train", content, {}) for content in contents] == [north, south, other]


def test_a_reply_survives_flowers_records() -> None:
    reply = Reply("north", 3, "abc", b"\x00model\xff", {"val.dice": 0.5, "train.images": 4.0})
    assert read_reply(reply_content(reply)) == reply


def test_no_model_travels_where_there_is_none() -> None:
    (content,) = task_contents([Task("query.describe")])
    assert not {"model", "received"} & content.keys()
    assert read_reply(reply_content(Reply("north", 0))).model == b""


def test_a_reply_of_another_protocol_is_an_error() -> None:
    with pytest.raises(ValueError, match="not of this protocol"):
        read_reply(RecordDict({"something": ConfigRecord({"a": 1})}))
