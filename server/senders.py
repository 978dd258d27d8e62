"""A reply is its sender's: the node that it says it comes from must be the one whose key signed the call.

Flower proves that a call comes from the node that its request names, and that a reply names the node that was asked,
but not that both are one node. Without this a site that knew of a message to another could answer in its place.
"""

from flwr.proto.fleet_pb2 import PushMessagesRequest
from starlette.types import ASGIApp, Receive, Scope, Send

from server.refusals import Refusals, send_refusal
from server.study import Study

REASON = "a reply in another site's name"


class Senders:
    """ASGI middleware just before the SuperLink's handlers, where requests are read and their keys are proven.

    Args:
        app: what is guarded.
        study: whose keys are known, and where refusals are logged.
    """

    def __init__(self, app: ASGIApp, study: Study) -> None:
        self._app = app
        self._study = study
        self._refusals = Refusals(study.refusals)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse replies in another's name; pass on the rest."""
        asked = scope.get("state", {}).get("protobuf_request")
        if not isinstance(asked, PushMessagesRequest) or _is_own(asked):
            await self._app(scope, receive, send)
            return
        self._refusals.note(f"{self._study.who_signed(dict(scope['headers']))}: {REASON}")
        await send_refusal(send, 403, REASON)


def _is_own(asked: PushMessagesRequest) -> bool:
    return all(message.metadata.src_node_id == asked.node.node_id for message in asked.messages_list)
