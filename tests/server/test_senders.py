import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest
from flwr.proto.message_pb2 import Message as FlowerMessage
from flwr.proto.message_pb2 import Metadata
from flwr.proto.node_pb2 import Node
from starlette.types import Message, Receive, Scope, Send

from protocol.keys import make_key_pair
from server.senders import Senders
from server.study import KEY_HEADER, Study, make_study

OURS, ANOTHER = 7, 8


@pytest.fixture
def study(tmp_path: Path) -> Study:
    study = make_study(tmp_path / "study", ["a"])
    make_key_pair(tmp_path / "m", tmp_path / "m.pub", "m")
    study.admit("mercy", tmp_path / "m.pub")
    return study


def pushed(*senders: int) -> PushMessagesRequest:
    messages = [FlowerMessage(metadata=Metadata(src_node_id=sender)) for sender in senders]
    return PushMessagesRequest(node=Node(node_id=OURS), messages_list=messages)


def ask(study: Study, request: Any) -> tuple[int, dict[str, Any]]:
    """The answer to a request that Flower has read and whose key it has proven to be node OURS's."""
    sent: list[Message] = []

    async def flower(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        raise AssertionError("the body was read before")

    header = (KEY_HEADER, base64.b64encode(study.admitted()["mercy"].pem))
    scope = {"type": "http", "headers": [header], "state": {"protobuf_request": request}}
    asyncio.run(Senders(flower, study)(scope, receive, send))
    return sent[0]["status"], json.loads(sent[1]["body"])


@pytest.mark.parametrize("request_", [pushed(OURS), pushed(OURS, OURS), pushed(), PullMessagesRequest(), None])
def test_ones_own_replies_and_other_calls_pass(study: Study, request_: Any) -> None:
    assert ask(study, request_) == (200, {})
    assert not study.refusals.exists()


@pytest.mark.parametrize("request_", [pushed(ANOTHER), pushed(OURS, ANOTHER)])
def test_a_reply_in_anothers_name_is_refused_and_written_down(study: Study, request_: Any) -> None:
    status, words = ask(study, request_)
    assert (status, words["extra"]) == (403, "a reply in another site's name")
    assert "refused mercy: a reply in another site's name" in study.refusals.read_text()


def test_a_call_outside_http_passes(study: Study) -> None:
    seen = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    async def nothing(*_: Any) -> Any:
        raise AssertionError("not called")

    asyncio.run(Senders(app, study)({"type": "lifespan"}, nothing, nothing))
    assert seen == ["lifespan"]
