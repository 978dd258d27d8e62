import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
import pytest
from flwr.proto.message_pb2 import PullObjectRequest, PushObjectRequest
from starlette.types import Receive, Scope, Send

from server import held_pulls
from server.held_pulls import AGAIN, CONFIRM, NEWS, NOT_YET, OBJECT, PULL, REPLIES, REPLY_OBJECT, HeldPulls

PUSH_OBJECT = "/v1/runtime/push-object"

Result = TypeVar("Result")


class Flower:
    """In Flower's place: hands each message or object out once, to whoever asks first."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.asked = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "http.request"
        self.asked += scope["path"] in NEWS.values()
        empty = NOT_YET if scope["path"] in (OBJECT, REPLY_OBJECT) else b""
        body = self.messages.pop(0) if scope["path"] in NEWS.values() and self.messages else empty
        await send({"type": "http.response.start", "status": 200, "headers": []})
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
            assert (pull.done(), flower.asked) == (False, 1)
            flower.messages.append(b"train")
            began = time.monotonic()
            await post(http, news)
            return await pull, time.monotonic() - began

    answer, seconds = run(work())
    assert answer == b"train"
    assert seconds < 0.3


def test_content_that_comes_wakes_only_those_who_asked_for_it() -> None:
    async def parsed(scope: Scope, receive: Receive, send: Send) -> None:
        """Flower, which leaves the request that it has read in the scope's state."""
        if scope["path"] not in NEWS.values():
            scope.setdefault("state", {})["protobuf_request"] = PushObjectRequest.FromString(
                (await receive())["body"]
            )
            receive = nothing
        await flower(scope, receive, send)

    async def nothing() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def work() -> tuple[int, bytes]:
        async with client(HeldPulls(parsed)) as http:
            asked_for = PullObjectRequest(object_id="a").SerializeToString()
            pull = asyncio.create_task(http.post(OBJECT, content=asked_for))
            await asyncio.sleep(0.1)
            await http.post(PUSH_OBJECT, content=PushObjectRequest(object_id="b").SerializeToString())
            await asyncio.sleep(0.1)
            asked = flower.asked
            flower.messages.append(b"content")
            await http.post(PUSH_OBJECT, content=PushObjectRequest(object_id="a").SerializeToString())
            return asked, (await pull).content

    flower = Flower()
    assert run(work()) == (1, b"content")


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


def test_a_message_that_was_confirmed_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_pulls, "HOLD", 0.05)

    async def work() -> list[bytes]:
        flower = Flower()
        flower.messages = [b"train"]
        async with client(HeldPulls(flower)) as http:
            first = await post(http, PULL)
            await post(http, CONFIRM)
            return [first, await post(http, PULL)]

    assert run(work()) == [b"train", b""]


def test_a_message_that_nobody_wants_is_handed_out_so_often_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held_pulls, "HOLD", 0.05)

    async def work() -> list[bytes]:
        flower = Flower()
        flower.messages = [b"train"]
        async with client(HeldPulls(flower)) as http:
            return [await post(http, PULL) for _ in range(AGAIN + 2)]

    assert run(work()) == [b"train"] * (AGAIN + 1) + [b""]


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
