"""A question for what is not there yet is held until it is, and work that did not arrive is handed out again.

Flower's SuperNode asks for work every three seconds and is told at once that there is nothing, so a round begins one
and a half seconds late on average. Here the answer waits until a server app has pushed something, or `HOLD` seconds.
A server app's question for replies waits likewise, instead of coming anew every few milliseconds. And a message is
announced before its content is there: who asks for that too early would ask again only a second later, at both ends
of every round, so that question waits as well, until that very content has come.

Flower hands a message out once; were the line cut just then, the site would idle until the round's deadline.
SuperNodes confirm what they have received before they ask again, so a site that asks without having confirmed gets
its last message again. Its reply bears the message's own id and counts once.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

PULL = "/v1/fleet/pull-messages"
CONFIRM = "/v1/fleet/confirm-message-received"
PUSHED = "/v1/runtime/push-messages"

REPLIES = "/v1/runtime/pull-messages"
OBJECT, REPLY_OBJECT = "/v1/fleet/pull-object", "/v1/runtime/pull-object"

NEWS = {
    PUSHED: PULL,
    "/v1/fleet/push-messages": REPLIES,
    "/v1/runtime/push-object": OBJECT,
    "/v1/fleet/push-object": REPLY_OBJECT,
}
"""Calls that bring something, and the question that may have waited for it."""

QUESTIONS = frozenset(NEWS.values())

NOT_YET = PullObjectResponse(object_found=True).SerializeToString()
"""The answer to a question for an object that is announced and not there."""

HOLD = 10.0
"""Seconds that an answer waits; SuperNodes wait 30 for it, and a server that ends waits for those it holds."""

LOOK_EVERY = 1.0
"""Seconds between two looks for what no push has told of; so long a server app is held, for it has a deadline."""

AGAIN = 3
"""How often a message is handed out again; a site that has refused it that often does not want it."""

KEY_HEADER = b"flwr-public-key"


@dataclass
class _Answer:
    """A response of the application: its start, its whole body, and how often it may still be handed out."""

    start: Message = field(default_factory=dict)
    body: bytes = b""
    left: int = AGAIN

    async def take(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")


@dataclass
class _News:
    """Who waits for news of what: messages by the question's path, content by the path and the object's id."""

    waiting: dict[tuple[str, str], list[asyncio.Event]] = field(default_factory=dict)

    @contextmanager
    def listen(self, what: tuple[str, str]) -> Iterator[asyncio.Event]:
        """An event that is set when something of this kind comes, as long as the `with` lasts."""
        event = asyncio.Event()
        self.waiting.setdefault(what, []).append(event)
        try:
            yield event
        finally:
            self.waiting[what].remove(event)
            if not self.waiting[what]:
                del self.waiting[what]

    def tell(self, what: tuple[str, str]) -> None:
        for event in self.waiting.get(what, []):
            event.set()


class HeldPulls:
    """ASGI middleware around the SuperLink's application; an empty answer to a pull of messages has no byte."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._unconfirmed: dict[bytes, _Answer] = {}
        self._news = _News()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold questions, watch pushes and confirmations, and pass on the rest."""
        path = scope.get("path", "")
        if path in QUESTIONS:
            await self._hold(scope, receive, send)
            return
        await self._app(scope, receive, send)
        if path in NEWS:
            brought = scope.get("state", {}).get("protobuf_request")
            what = brought.object_id if isinstance(brought, PushObjectRequest) else ""
            self._news.tell((NEWS[path], what))
        elif path == CONFIRM:
            self._unconfirmed.pop(_key(scope), None)

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole(receive)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            with self._news.listen((scope["path"], _object(scope["path"], body))) as news:
                answer = await self._answer(scope, body, gone, news)
        finally:
            gone.cancel()
        if answer is not None:
            await send(answer.start)
            await send({"type": "http.response.body", "body": answer.body})

    async def _answer(
        self, scope: Scope, body: bytes, gone: "asyncio.Future[Any]", news: asyncio.Event
    ) -> _Answer | None:
        """The first answer that says more than "not yet", or the last; None when nobody waits for it any longer."""
        path = scope["path"]
        until = time.monotonic() + (LOOK_EVERY if path == REPLIES else HOLD)
        while not gone.done():
            news.clear()
            answer = await self._ask(scope, body)
            left = until - time.monotonic()
            if answer.start["status"] != 200 or left <= 0:
                return answer
            if answer.body != (NOT_YET if path in (OBJECT, REPLY_OBJECT) else b""):
                if path == PULL:
                    self._unconfirmed[_key(scope)] = answer
                return answer
            if path == PULL and (again := self._unconfirmed.get(_key(scope))) is not None and again.left:
                again.left -= 1
                return again
            work: asyncio.Future[Any] = asyncio.ensure_future(news.wait())
            await asyncio.wait([work, gone], timeout=min(left, LOOK_EVERY), return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
        return None

    async def _ask(self, scope: Scope, body: bytes) -> _Answer:
        answer, sent = _Answer(), False

        async def receive() -> Message:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # nothing more comes
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(dict(scope) | {"state": dict(scope.get("state") or {})}, receive, answer.take)
        return answer


async def _whole(receive: Receive) -> bytes:
    """The whole body of a request, whose length the guard has bounded."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    return body


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _object(path: str, body: bytes) -> str:
    """The id of the object that is asked for; "" where it is messages, or the request is none."""
    try:
        return PullObjectRequest.FromString(body).object_id if path in (OBJECT, REPLY_OBJECT) else ""
    except DecodeError:
        return ""


def _key(scope: Scope) -> bytes:
    return dict(scope["headers"]).get(KEY_HEADER, b"")
