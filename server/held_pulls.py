"""A question for what is not there yet is held until it is, and work that did not arrive is handed out again.

Flower's SuperNode asks for work every three seconds and is told at once that there is nothing, so a round begins one
and a half seconds late on average. Here the answer waits until a server app has pushed something, or `HOLD` seconds.
A server app's question for replies waits likewise, instead of coming anew every few milliseconds, and until one is
whole (`server.uploads`). A task is announced before its content is there: who asks for that too early would ask again
only a second later, so that question waits as well, until that very content has come.

Flower hands a message out once; were the line cut just then, the site would idle until the round's deadline.
SuperNodes confirm what they have received before they ask again, so a site that asks without having confirmed gets
its last message again. Its reply bears the message's own id and counts once.
"""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

from flwr.proto.fleet_pb2 import PushMessagesRequest, PushMessagesResponse
from flwr.proto.message_pb2 import PullObjectRequest, PullObjectResponse, PushObjectRequest, PushObjectResponse
from flwr.proto.runtime_pb2 import PullAppMessagesRequest
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.responses import OK, Response
from server.uploads import Uploads

PULL = "/v1/fleet/pull-messages"
CONFIRM = "/v1/fleet/confirm-message-received"
PUSHED = "/v1/runtime/push-messages"

REPLIES, REPLIED = "/v1/runtime/pull-messages", "/v1/fleet/push-messages"
REPLY_OBJECT = "/v1/fleet/push-object"
OBJECT, OBJECT_PUSHED = "/v1/fleet/pull-object", "/v1/runtime/push-object"

QUESTIONS = (PULL, REPLIES, OBJECT)
"""What is held."""

NOT_YET = PullObjectResponse(object_found=True).SerializeToString()
"""The answer to a question for an object that is announced and not there."""

HOLD = 10.0
"""Seconds that an answer waits; SuperNodes wait 30 for it, and a server that ends waits for those it holds."""

LOOK_EVERY = 1.0
"""Seconds between two looks for what no push has told of; so long a server app is held, for it has a deadline."""

AGAIN = 3
"""How often a message is handed out again; a site that has refused it that often does not want it."""

KEY_HEADER = b"flwr-public-key"

Request = TypeVar("Request", PullObjectRequest, PushObjectRequest, PushMessagesRequest, PullAppMessagesRequest)


@dataclass
class _Handed:
    """A message that was handed out, and how often it may still be."""

    response: Response
    left: int = AGAIN


@dataclass
class _News:
    """Who waits for news of what: messages by the question's path, content by the path and the object's id."""

    waiting: dict[tuple[str, str], list[asyncio.Event]] = field(default_factory=dict)

    @contextmanager
    def listen(self, path: str, what: str) -> Iterator[asyncio.Event]:
        """An event that is set when something of this kind comes, as long as the `with` lasts."""
        event, key = asyncio.Event(), (path, what)
        self.waiting.setdefault(key, []).append(event)
        try:
            yield event
        finally:
            self.waiting[key].remove(event)
            if not self.waiting[key]:
                del self.waiting[key]

    def tell(self, path: str, what: str = "") -> None:
        for event in self.waiting.get((path, what), []):
            event.set()


class HeldPulls:
    """ASGI middleware around the SuperLink's application; an empty answer to a pull of messages has no byte."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._unconfirmed: dict[bytes, _Handed] = {}
        self._news = _News()
        self._uploads = Uploads()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold questions, watch pushes and confirmations, and pass on the rest."""
        path = scope.get("path")
        if path in QUESTIONS:
            await self._hold(scope, receive, send)
        elif path == REPLIED:
            await self._announce(scope, receive, send)
        elif path == REPLY_OBJECT:
            answer = Response(send)
            await self._app(scope, receive, answer.take)
            brought = _request(scope, PushObjectRequest)
            if brought and PushObjectResponse.FromString(answer.good).stored and self._uploads.brought(brought):
                self._news.tell(REPLIES)
        else:
            await self._app(scope, receive, send)
            if path == PUSHED:
                self._news.tell(PULL)
            elif path == OBJECT_PUSHED and (pushed := _request(scope, PushObjectRequest)):
                self._news.tell(OBJECT, pushed.object_id)
            elif path == CONFIRM:
                self._unconfirmed.pop(_key(scope), None)

    async def _announce(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass replies on that a site announces; nobody is told of them before Flower has said what is to come."""
        body = await _whole(receive)
        upload = self._uploads.begin(_read(PushMessagesRequest, body))
        answer = Response()
        try:
            answer = await self._ask(scope, body)
        finally:
            if answer.status != OK:
                self._uploads.drop(upload)
            elif self._uploads.announced(upload, PushMessagesResponse.FromString(answer.body)):
                self._news.tell(REPLIES)
        await answer.pass_on(send)

    async def _hold(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole(receive)
        gone = asyncio.ensure_future(_disconnected(receive))
        what = _read(PullObjectRequest, body).object_id if scope["path"] == OBJECT else ""
        try:
            with self._news.listen(scope["path"], what) as news:
                answer = await self._answer(scope, body, gone, news)
        finally:
            gone.cancel()
        if answer is not None:
            await answer.pass_on(send)

    async def _answer(
        self, scope: Scope, body: bytes, gone: "asyncio.Future[Any]", news: asyncio.Event
    ) -> Response | None:
        """The first answer that says more than "not yet", or the last; None when nobody waits for it any longer."""
        path = scope["path"]
        until = time.monotonic() + (LOOK_EVERY if path == REPLIES else HOLD)
        while not gone.done():
            news.clear()
            answer = await self._ask(scope, self._of_whole(body) if path == REPLIES else body)
            if answer.status != OK:
                return answer
            if answer.body != (NOT_YET if path == OBJECT else b""):
                if path == PULL:
                    self._unconfirmed[_key(scope)] = _Handed(answer)
                elif path == OBJECT and not answer.body:
                    self._unconfirmed.pop(_key(scope), None)  # its content is gone: nobody needs it again
                return answer
            if path == PULL and (again := self._unconfirmed.get(_key(scope))) is not None and again.left:
                again.left -= 1
                return again.response
            if (left := until - time.monotonic()) <= 0:
                return answer
            work: asyncio.Future[Any] = asyncio.ensure_future(news.wait())
            await asyncio.wait([work, gone], timeout=min(left, LOOK_EVERY), return_when=asyncio.FIRST_COMPLETED)
            work.cancel()
        return None

    def _of_whole(self, body: bytes) -> bytes:
        """A question for replies without the messages to which a reply is under way."""
        asked = _read(PullAppMessagesRequest, body)
        whole = self._uploads.whole(asked.message_ids)
        del asked.message_ids[:]
        asked.message_ids.extend(whole)
        return asked.SerializeToString()

    async def _ask(self, scope: Scope, body: bytes) -> Response:
        answer, sent = Response(), False

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


def _read(kind: type[Request], body: bytes) -> Request:
    """A request; an empty one where the bytes are none, which Flower refuses."""
    try:
        return kind.FromString(body)
    except DecodeError:
        return kind()


def _request(scope: Scope, kind: type[Request]) -> Request | None:
    """The request as Flower has read it; None where it has not."""
    request = scope.get("state", {}).get("protobuf_request")
    return request if isinstance(request, kind) else None


def _key(scope: Scope) -> bytes:
    return dict(scope["headers"]).get(KEY_HEADER, b"")
