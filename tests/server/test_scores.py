import pytest

from protocol.messages import Reply
from server.scores import book, pooled, worst


def reply(site: str, images: float, dice: float, train: float = 0.0, evaluate: float = 0.0) -> Reply:
    scalars = {"val.images": images, "seconds.train": train, "seconds.evaluate": evaluate}
    return Reply(site, 1, scalars=scalars | ({"val.dice": dice} if images else {}))


def test_pooled_scores_count_images_and_the_worst_counts_sites() -> None:
    replies = [reply("a", 30, 0.9), reply("b", 10, 0.5), reply("c", 0, 0.0)]
    assert pooled(replies, "val", "dice") == pytest.approx(0.8)
    assert worst(replies, "val", "dice") == 0.5


def test_sites_without_images_have_no_score() -> None:
    assert pooled([reply("c", 0, 0.0)], "val", "dice") is None
    assert worst([], "val", "dice") is None


def test_time_of_sites_that_took_turns_is_added() -> None:
    parts = book(12.0, 11.0, 0.5, [reply("a", 1, 1, train=4, evaluate=1), reply("b", 1, 1, train=4, evaluate=1)])
    assert parts == {"train": 8, "evaluate": 2, "aggregate": 0.5, "transfer": 0.5, "other": 1, "total": 12}


def test_time_of_sites_side_by_side_is_divided() -> None:
    parts = book(6.0, 6.0, 0.0, [reply("a", 1, 1, train=4, evaluate=1), reply("b", 1, 1, train=4, evaluate=1)])
    assert parts == {"train": 4, "evaluate": 1, "aggregate": 0, "transfer": 1, "other": 0, "total": 6}
