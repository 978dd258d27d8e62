import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import Message, Metadata, PullObjectRequest, PushObjectRequest, PushObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from starlette.types import Receive, Scope, Send

from server import held_pulls, uploads
from server.held_pulls import (
    AGAIN,
    CONFIRM,
    NOT_YET,
    OBJECT,
    OBJECT_PUSHED,
    PULL,
    PUSHED,
    QUESTIONS,
    REPLIED,
    REPLIES,
    REPLY_OBJECT,
    HeldPulls,
)

NEWS = {PUSHED: PULL, REPLIED: REPLIES, OBJECT_PUSHED: OBJECT}
"""Calls that bring something, and the question that may have waited for it."""

Result = TypeVar("Result")


class Flower:
    """In Flower's place: hands each message or object out once, to whoever asks first, and takes what is pushed."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.questions: list[bytes] = []
        self.to_push: list[str] = []
        self.status = 200

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        got = await receive()
        assert got["type"] == "http.request"
        path = scope["path"]
        if path in (OBJECT_PUSHED, REPLY_OBJECT):
            scope.setdefault("state", {})["protobuf_request"] = PushObjectRequest.FromString(got["body"])
        body = {
            OBJECT: NOT_YET,
            REPLIED: PushMessagesResponse(session_id="s", objects_to_push=self.to_push).SerializeToString(),
            REPLY_OBJECT: PushObjectResponse(stored=True).SerializeToString(),
        }.get(path, b"")
        if path in QUESTIONS:
            self.questions.append(got["body"])
            body = self.messages.pop(0) if self.messages else body
        await send({"type": "http.response.start", "status": self.status, "headers": []})
        await send({"type": "http.response.body", "body": body})


def run(work: Coroutine[Any, Any, Result]) -> Result:
    return asyncio.run(work)


def client(app: HeldPulls) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a")


async def post(http: httpx.AsyncClient, path: str, key: str = "mercy") -> bytes:
    return (await http.post(path, headers={"flwr-public-key": key})).content


@pytest.mark.parametrize(("news", "question"), NEWS.items())
def test_an_answer_waits_for_its_news_and_comes_with_it_at_once(news: str, question: str) -> None:
    async def work() -> tuple[bytes, float]:
        flower = Flower()
        async with client(HeldPulls(flower)) as http:
            pull = asyncio.create_task(post(http, question))
            await asyncio.sleep(0.3)
            for other in NEWS.keys() - {news}:
                await post(http, other)
            assert (pull.done(), len(flower.questions)) == (False, 1)
            flower.messages.append(b"train")
            began = time.monotonic()
            await post(http, news)
            return await pull, time.monotonic() - began

    answer, seconds = run(work())
    assert answer == b"train"
    assert seconds < 0.3


def test_content_that_comes_wakes_only_those_who_asked_for_it() -> None:
    async def work() -> tuple[int, bytes]:
        flower = Flower()
        async with client(HeldPulls(flower)) as http:
            asked_for = PullObjectRequest(object_id="a").SerializeToString()
            pull = asyncio.create_task(http.post(OBJECT, content=asked_for))
            await asyncio.sleep(0.1)
            await http.post(OBJECT_PUSHED, content=PushObjectRequest(object_id="b").SerializeToString())
            await asyncio.sleep(0.1)
            asked = len(flower.questions)
            flower.messages.append(b"content")
            await http.post(OBJECT_PUSHED, content=PushObjectRequest(object_id="a").SerializeToString())
            return asked, (await pull).content

    assert run(work()) == (1, b"content")


def reply_to(task: str) -> bytes:
    """What a site announces: a reply to one task."""
    message = Message(metadata=Metadata(reply_to_message_id=task))
    return PushMessagesRequest(messages_list=[message]).SerializeToString()


def asked_of(flower: Flower) -> list[list[str]]:
    """The tasks about which Flower was asked for replies, a list a question."""
    return [list(PullAppMessagesRequest.FromString(body).message_ids) for body in flower.questions]


QUESTION = PullAppMessagesRequest(message_ids=["north", "south"]).SerializeToString()


def test_a_reply_is_asked_for_when_all_of_it_is_there_and_then_at_once() -> None:
    async def work() -> tuple[list[list[str]], float]:
        flower = Flower()
        flower.to_push = ["a", "b"]
        async with client(HeldPulls(flower)) as http:
            await http.post(REPLIED, content=reply_to("north"))
            pull = asyncio.create_task(http.post(REPLIES, content=QUESTION))
            await asyncio.sleep(0.1)
            for name in ("a", "of another session", "b"):
                session = "s" if len(name) == 1 else "t"
                pushed = PushObjectRequest(object_id=name, session_id=session)
                began = time.monotonic()
                await http.post(REPLY_OBJECT, content=pushed.SerializeToString())
                if name == "of another session":
                    await asyncio.sleep(0.1)
                    flower.messages.append(b"reply")
            assert (await pull).content == b"reply"
            return asked_of(flower), time.monotonic() - began

    asked, seconds = run(work())
    assert asked == [["south"], ["north", "south"]]
    assert seconds < 0.3


def test_a_reply_that_has_not_moved_for_so_long_is_flowers_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "OBJECT_PUSH_SESSION_TTL_SECONDS", 0.2)
    monkeypatch.setattr(held_pulls, "LOOK_EVERY", 0.0)

    async def work() -> list[list[str]]:
        flower = Flower()
        flower.to_push = ["a"]
        async with client(HeldPulls(flower)) as http:
            await http.post(REPLIED, content=reply_to("north"))
            await http.post(REPLIES, content=QUESTION)
            await asyncio.sleep(0.3)
            await http.post(REPLIES, content=QUESTION)
            return asked_of(flower)

    assert run(work()) == [["south"], ["north", "south"]]


def test_an_announcement_that_flower_refuses_holds_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_pulls, "LOOK_EVERY", 0.0)

    async def work() -> list[list[str]]:
        flower = Flower()
        flower.to_push, flower.status = ["a"], 403
        async with client(HeldPulls(flower)) as http:
            assert (await http.post(REPLIED, content=reply_to("north"))).status_code == 403
            await http.post(REPLIES, content=QUESTION)
            return asked_of(flower)

    assert run(work()) == [["north", "south"]]


def test_an_object_of_which_nobody_has_told_is_not_waited_for() -> None:
    unknown = b"\x18\x01"  # as if Flower had said anything else than that it is to come

    async def work() -> bytes:
        flower = Flower()
        flower.messages = [unknown]
        async with client(HeldPulls(flower)) as http:
            return await post(http, OBJECT)

    assert run(work()) == unknown


@pytest.mark.parametrize(("path", "limit"), [(PULL, "HOLD"), (REPLIES, "LOOK_EVERY")])
def test_an_answer_waits_only_so_long(path: str, limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server app's question for replies not as long as a site's: it has a deadline to keep."""
    monkeypatch.setattr(held_pulls, limit, 0.2)

    async def work() -> bytes:
        async with client(HeldPulls(Flower())) as http:
            return await post(http, path)

    began = time.monotonic()
    assert run(work()) == b""
    assert 0.2 <= time.monotonic() - began < 2


def test_a_message_that_was_not_confirmed_is_handed_out_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_pulls, "HOLD", 0.05)

    async def work() -> list[bytes]:
        flower = Flower()
        flower.messages = [b"train"]
        async with client(HeldPulls(flower)) as http:
            return [await post(http, PULL), await post(http, PULL, "other"), await post(http, PULL)]

    assert run(work()) == [b"train", b"", b"train"]


def answers_in_turn(monkeypatch: pytest.MonkeyPatch, messages: list[bytes], *calls: str) -> list[bytes]:
    """What one site is told, call after call, where Flower has these messages and nothing is held for long."""
    monkeypatch.setattr(held_pulls, "HOLD", 0.05)

    async def work() -> list[bytes]:
        flower = Flower()
        flower.messages = messages
        async with client(HeldPulls(flower)) as http:
            return [await post(http, call) for call in calls]

    return run(work())


def test_a_message_that_was_confirmed_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    first, _, second = answers_in_turn(monkeypatch, [b"train"], PULL, CONFIRM, PULL)
    assert [first, second] == [b"train", b""]


def test_a_message_whose_content_is_gone_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert answers_in_turn(monkeypatch, [b"train", b""], PULL, OBJECT, PULL) == [b"train", b"", b""]


def test_what_comes_when_time_is_up_counts_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_pulls, "HOLD", 0.0)

    async def work() -> list[bytes]:
        flower = Flower()
        flower.messages = [b"train"]
        async with client(HeldPulls(flower)) as http:
            answers = [await post(http, PULL), await post(http, PULL)]
            flower.messages = [b""]
            return [*answers, await post(http, OBJECT), await post(http, PULL)]

    assert run(work()) == [b"train", b"train", b"", b""]


def test_a_message_that_nobody_wants_is_handed_out_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = answers_in_turn(monkeypatch, [b"train"], *[PULL] * (AGAIN + 2))
    assert answers == [b"train"] * (AGAIN + 1) + [b""]


def test_who_is_gone_takes_no_message_along() -> None:
    async def work() -> list[bytes]:
        flower = Flower()
        app = HeldPulls(flower)
        left = asyncio.Event()
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if asked:
                await left.wait()
                return {"type": "http.disconnect"}
            asked = True
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            raise AssertionError("an answer to nobody")

        scope = {"type": "http", "path": PULL, "headers": [(b"flwr-public-key", b"mercy")]}
        pull = asyncio.create_task(app(scope, receive, send))
        await asyncio.sleep(0.1)
        left.set()
        await pull
        flower.messages.append(b"train")
        async with client(app) as http:
            return [await post(http, PULL)]

    assert run(work()) == [b"train"]
