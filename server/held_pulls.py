"""A site's question for work is held until there is some, and work that did not arrive is handed out again.

Flower's SuperNode asks every three seconds and is told at once that there is nothing, so a round begins one and a
half seconds late on average. Here the answer waits until a server app has pushed something, or `HOLD` seconds. Flower
hands a message out once; were the line cut just then, the site would idle until the round's deadline. SuperNodes
confirm what they have received before they ask again, so a site that asks without having confirmed gets its last
message again. Its reply bears the message's own id and counts once.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

PULL = "/v1/fleet/pull-messages"
CONFIRM = "/v1/fleet/confirm-message-received"
PUSHED = "/v1/runtime/push-messages"

HOLD = 10.0
"""Seconds that an answer waits; SuperNodes wait 30 for it, and a server that ends waits for those it holds."""

LOOK_EVERY = 1.0
"""Seconds between two looks for work of which no push has told."""

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


class HeldPulls:
    """ASGI middleware around the SuperLink's application; an empty answer to a pull has no byte."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._unconfirmed: dict[bytes, _Answer] = {}
        self._pushed = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hold pulls, watch pushes and confirmations, and pass on the rest."""
        path = scope.get("path")
        if path == PULL:
            await self._pull(scope, receive, send)
            return
        await self._app(scope, receive, send)
        if path == PUSHED:
            self._pushed.set()
            self._pushed = asyncio.Event()
        elif path == CONFIRM:
            self._unconfirmed.pop(_key(scope), None)

    async def _pull(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _whole(receive)
        gone = asyncio.ensure_future(_disconnected(receive))
        try:
            answer = await self._answer(scope, body, gone)
        finally:
            gone.cancel()
        if answer is not None:
            await send(answer.start)
            await send({"type": "http.response.body", "body": answer.body})

    async def _answer(self, scope: Scope, body: bytes, gone: "asyncio.Future[Any]") -> _Answer | None:
        """The first answer that holds a message or an error, or the last empty one; None when nobody waits for it."""
        until = time.monotonic() + HOLD
        while not gone.done():
            pushed = self._pushed
            answer = await self._ask(scope, body)
            left = until - time.monotonic()
            if answer.start["status"] != 200 or left <= 0:
                return answer
            if answer.body:
                self._unconfirmed[_key(scope)] = answer
                return answer
            if (again := self._unconfirmed.get(_key(scope))) is not None and again.left:
                again.left -= 1
                return again
            work: asyncio.Future[Any] = asyncio.ensure_future(pushed.wait())
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


def _key(scope: Scope) -> bytes:
    return dict(scope["headers"]).get(KEY_HEADER, b"")
