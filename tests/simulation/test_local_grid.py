import threading
import time

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict

from protocol.errors import RunError
from simulation.local_grid import LocalGrid


def ask(node: int, text: str = "") -> Message:
    return Message(RecordDict({"ask": ConfigRecord({"text": text})}), node, "train")


def echo(message: Message, context: Context) -> Message:
    words = ConfigRecord({"site": context.node_config["partition-id"], "thread": threading.current_thread().name})
    return Message(RecordDict({"answer": words}), reply_to=message)


def test_every_node_answers_its_own_message() -> None:
    grid = LocalGrid(echo, 4, 2, {})
    replies = list(grid.send_and_receive([ask(node) for node in grid.get_node_ids()], timeout=10))
    grid.close()
    assert sorted(reply.content["answer"]["site"] for reply in replies) == [0, 1, 2, 3]


def test_a_site_always_computes_in_the_same_lane() -> None:
    grid = LocalGrid(echo, 4, 2, {})
    threads: dict[int, set[str]] = {}
    for _ in range(3):
        for reply in grid.send_and_receive([ask(node) for node in grid.get_node_ids()], timeout=10):
            threads.setdefault(reply.content["answer"]["site"], set()).add(reply.content["answer"]["thread"])
    grid.close()
    assert all(len(names) == 1 for names in threads.values())
    assert threads[0] == threads[2] != threads[1] == threads[3]


def test_lanes_work_side_by_side() -> None:
    together = threading.Barrier(2, timeout=10)

    def meet(message: Message, context: Context) -> Message:
        together.wait()
        return echo(message, context)

    grid = LocalGrid(meet, 2, 2, {})
    assert len(list(grid.send_and_receive([ask(1), ask(2)], timeout=10))) == 2
    grid.close()


def test_what_a_client_raises_is_its_reply() -> None:
    def broken(message: Message, context: Context) -> Message:
        raise ZeroDivisionError("out of luck")

    grid = LocalGrid(broken, 1, 1, {})
    (reply,) = grid.send_and_receive([ask(1)], timeout=10)
    grid.close()
    assert reply.error.reason == "ZeroDivisionError: out of luck"


def test_a_timeout_returns_what_has_come() -> None:
    release = threading.Event()

    def slow(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1:
            release.wait(10)
        return echo(message, context)

    grid = LocalGrid(slow, 2, 2, {})
    began = time.monotonic()
    assert len(list(grid.send_and_receive([ask(1), ask(2)], timeout=0.3))) == 1
    assert time.monotonic() - began < 5
    release.set()
    grid.close()


def test_a_message_whose_time_is_over_is_not_worked_on() -> None:
    done = []

    def note(message: Message, context: Context) -> Message:
        done.append(message.content["ask"]["text"])
        if done == ["slow"]:
            time.sleep(0.5)
        return echo(message, context)

    grid = LocalGrid(note, 1, 1, {})
    words = {"slow": 0.2, "late": 0.2, "patient": 10.0}
    messages = [Message(RecordDict({"ask": ConfigRecord({"text": w})}), 1, "train", ttl=t) for w, t in words.items()]
    replies = list(grid.send_and_receive(messages, timeout=2))
    grid.close()
    assert done == ["slow", "patient"]
    assert len(replies) == 1
    assert grid._replies == {}


def test_a_closed_grid_says_so() -> None:
    grid = LocalGrid(echo, 1, 1, {})
    grid.close()
    with pytest.raises(RunError, match="the run was stopped"):
        grid.push_messages([ask(1)])
