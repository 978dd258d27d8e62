import pytest
from flwr.app import ConfigRecord, RecordDict

from protocol.messages import Reply, Task, read_reply, read_task, reply_content, task_content


def test_a_task_survives_flowers_records() -> None:
    task = Task("train", 3, "abc", b"\x00model\xff", "val")
    assert read_task("train", task_content(task), {"seed": 1}) == Task(
        "train", 3, "abc", b"\x00model\xff", "val", {"seed": 1}
    )


def test_a_reply_survives_flowers_records() -> None:
    reply = Reply("north", 3, "abc", b"\x00model\xff", {"val.dice": 0.5, "train.images": 4.0})
    assert read_reply(reply_content(reply)) == reply


def test_no_model_travels_where_there_is_none() -> None:
    assert "model" not in task_content(Task("query.describe"))
    assert read_reply(reply_content(Reply("north", 0))).model == b""


def test_a_reply_of_another_protocol_is_an_error() -> None:
    with pytest.raises(ValueError, match="not of this protocol"):
        read_reply(RecordDict({"something": ConfigRecord({"a": 1})}))
