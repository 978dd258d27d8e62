"""What an application answers to one request, for a middleware that reads it before, or while, it goes on."""

from dataclasses import dataclass, field

from starlette.types import Message, Send

OK = 200

Header = tuple[bytes, bytes]


@dataclass
class Response:
    """A response: its start and its whole body.

    Args:
        send: takes it as it comes, where it is to be passed on at once.
    """

    send: Send | None = None
    start: Message = field(default_factory=dict)
    body: bytes = b""

    async def take(self, message: Message) -> None:
        """Take the next part of it, in the place of an ASGI `send`."""
        if message["type"] == "http.response.start":
            self.start = message
        else:
            self.body += message.get("body", b"")
        if self.send is not None:
            await self.send(message)

    async def pass_on(self, send: Send) -> None:
        """Send it, whole."""
        await send(self.start)
        await send({"type": "http.response.body", "body": self.body})

    @property
    def status(self) -> int:
        """The HTTP status; 0 as long as there is none."""
        return int(self.start.get("status", 0))

    @property
    def good(self) -> bytes:
        """The body; empty of a refusal."""
        return self.body if self.status == OK else b""


def whole(status: int, kind: bytes, body: bytes, *more: Header) -> Response:
    """A response of our own.

    Args:
        kind: its media type.
        more: further headers.
    """
    headers = [(b"content-type", kind), (b"content-length", str(len(body)).encode()), *more]
    return Response(start={"type": "http.response.start", "status": status, "headers": headers}, body=body)
