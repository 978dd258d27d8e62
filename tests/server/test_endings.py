import asyncio
import json
from typing import Any

import httpx
import pytest
from flwr.app import Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import Status
from flwr.proto.message_pb2 import ObjectTree, PullObjectResponse
from flwr.proto.node_pb2 import Node
from flwr.supercore.error import ApiErrorCode
from flwr.supercore.inflatable.inflatable_protobuf_utils import make_pull_object_fn_protobuf
from flwr.supercore.inflatable.inflatable_utils import ObjectPullError
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.run import Run
from flwr.supernode.nodestate.in_memory_nodestate import InMemoryNodeState
from flwr.supernode.start_client_internal import _pull_and_store_message
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


def test_flowers_supernode_comes_out_of_that_as_it_went_in() -> None:
    """Its own receiving and state; a courier has begun with the message whose content is gone."""
    state = InMemoryNodeState(InMemoryObjectStore())
    state.store_run(Run.create_empty(1))
    metadata = Metadata(1, "a", 0, 1, "", "1", 0.0, 600.0, "train")
    message = make_message(metadata, RecordDict())
    message.metadata.__dict__["_message_id"] = message.object_id
    answer = ask(OBJECT, REFUSED, refusal(OVER))

    def never(*_: object) -> Any:
        raise AssertionError

    def pull(run: int, content: str) -> bytes:
        (task,) = state.get_tasks()
        assert state.claim_task(task.task_id)
        assert state.activate_task(task.task_id)
        assert state.get_messages_legacy(run_ids=[run], is_reply=False)
        return make_pull_object_fn_protobuf(
            lambda _: PullObjectResponse.FromString(answer.content), Node(node_id=1), run
        )(content)

    received = _pull_and_store_message(
        state=state,
        object_store=state.object_store,
        node_config={},
        receive=lambda: (message, ObjectTree(object_id=message.object_id)),
        get_run=never,
        get_fab=never,
        pull_object=pull,
        confirm_message_received=never,
        trusted_entities=None,
    )
    assert received is None
    assert (state.msg_store, len(state.object_store)) == ({}, 0)
    assert state.get_tasks()[0].status.status == Status.FINISHED
    assert state.task_token_store == {}  # whatever the courier brings now is refused


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
