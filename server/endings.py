"""A run that ends while a site receives a message of it: the site must come out of that as it went in.

Flower refuses the site's calls from then on, whereupon its SuperNode drops what it was doing and leaves the message
where it is. Its courier may find the message whole and answer it; that answer is sent in place of the next one, which
then waits for the one after: the site would seem dead to every later run until it is started again. So the two calls
by which a message is received end otherwise. Its content is gone, which has the SuperNode give the message up and
tidy up behind it; and what is whole already counts as received, and the answer to it is refused as to any run that is
over.
"""

from flwr.proto.message_pb2 import ConfirmMessageReceivedResponse, PullObjectResponse
from flwr.supercore.error import ApiErrorCode, FlowerError
from starlette.types import ASGIApp, Receive, Scope, Send

from server.held_pulls import CONFIRM, OBJECT
from server.responses import OK, Response, whole

INSTEAD = {
    OBJECT: PullObjectResponse(object_found=False).SerializeToString(),
    CONFIRM: ConfirmMessageReceivedResponse().SerializeToString(),
}
"""What is answered in place of "the run is over", by path."""


class Endings:
    """ASGI middleware around the SuperLink's application; in front of it stands what waits for content to come."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass everything on but the refusals after which a site would be out of step."""
        if scope.get("path") not in INSTEAD:
            await self._app(scope, receive, send)
            return
        answer = Response()
        await self._app(scope, receive, answer.take)
        if answer.status != OK and _is_over(answer.body):
            answer = whole(OK, b"application/protobuf", INSTEAD[scope["path"]])
        await answer.pass_on(send)


def _is_over(refusal: bytes) -> bool:
    said = FlowerError.from_json(refusal.decode(errors="replace"))
    return said is not None and said.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED
