import asyncio
import json

import httpx
import pytest
from flwr.proto.message_pb2 import PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from starlette.types import Receive, Scope, Send

from server.endings import Endings
from server.held_pulls import CONFIRM, OBJECT, PULL, REPLIED, REPLY_OBJECT

OVER, OTHER = ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL
REFUSED = 403


def refusal(code: ApiErrorCode) -> bytes:
    return json.dumps({"code": code, "detail": "no"}).encode()


def ask(path: str, status: int, body: bytes) -> httpx.Response:
    """What a site is told that calls `path` when Flower answers with `status` and `body`, in two pieces."""

    async def flower(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"x-from", b"flower")]})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    async def work() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(Endings(flower)), base_url="http://a") as http:
            return await http.post(path)

    return asyncio.run(work())


def test_content_of_a_run_that_is_over_is_gone_which_flowers_supernode_takes_for_an_error() -> None:
    answer = ask(OBJECT, REFUSED, refusal(OVER))
    assert answer.status_code == 200
    pull = make_pull_object_fn_protobuf(lambda _: PullObjectResponse.FromString(answer.content), Node(), 1)
    with pytest.raises(ObjectPullError):
        pull("a")


def test_a_message_of_a_run_that_is_over_counts_as_received() -> None:
    answer = ask(CONFIRM, REFUSED, refusal(OVER))
    assert (answer.status_code, answer.content) == (200, b"")


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        *((path, REFUSED, refusal(OVER)) for path in (PULL, REPLIED, REPLY_OBJECT, "/v1/fleet/get-run")),
        *((path, REFUSED, refusal(OTHER)) for path in (OBJECT, CONFIRM)),
        *((path, 502, b"<html>\xff") for path in (OBJECT, CONFIRM)),
        (OBJECT, 200, refusal(OVER)),  # content is never looked into
    ],
)
def test_whatever_else_flower_answers_passes(path: str, status: int, body: bytes) -> None:
    answer = ask(path, status, body)
    assert (answer.status_code, answer.content, answer.headers["x-from"]) == (status, body, "flower")
