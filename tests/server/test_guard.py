import asyncio
import base64
import datetime
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from protocol.keys import PublicKey, make_key_pair
from server.guard import LARGEST_BODY, Guard
from server.study import Study, make_study

HOSPITAL = "192.0.2.7"


class Flower:
    """In Flower's place: answers with `status` and `body`, and counts what was passed on to it."""

    def __init__(self, status: int = 200, body: bytes = b"answer") -> None:
        self.status, self.body, self.asked = status, body, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked += 1
        headers = [(b"content-length", str(len(self.body)).encode())]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", ["a"])


def ask(
    study: Study, flower: Flower, path: str, client: str = HOSPITAL, headers: dict[str, str] | None = None
) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(Guard(flower, study), client=(client, 1))
        async with httpx.AsyncClient(transport=transport, base_url="http://a") as http:
            return await http.post(path, headers=headers)

    return asyncio.run(call())


def key(study: Study, name: str) -> PublicKey:
    return make_key_pair(study.folder / name, study.folder / f"{name}.pub", name)


def signed(key: PublicKey, late: float = 0.0) -> dict[str, str]:
    at = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=late)
    return {"flwr-public-key": base64.b64encode(key.pem).decode(), "flwr-timestamp": at.isoformat()}


@pytest.mark.parametrize("path", ["/v1/control/start-run", "/v1/runtime/acquire-task", "/docs", "/v1/fleetx/a"])
def test_hospitals_reach_the_fleet_interface_and_no_other(study: Study, path: str) -> None:
    flower = Flower()
    refused = ask(study, flower, path)
    assert (refused.status_code, flower.asked) == (403, 0)
    assert refused.json()["extra"] == f"{path} is open to the coordinator's own machine only"
    assert f"a caller without a key from {HOSPITAL}: {path}" in study.refusals.read_text()
    assert ask(study, flower, path, client="127.0.0.1").content == b"answer"
    assert ask(study, flower, "/v1/fleet/pull-messages").content == b"answer"
    assert ask(study, flower, "/health").content == b"answer"


def test_a_body_over_the_cap_is_refused_before_it_is_read(study: Study) -> None:
    flower = Flower()
    headers = {"content-length": str(LARGEST_BODY + 1)}
    refused = ask(study, flower, "/v1/fleet/push-object", headers=headers)
    assert (refused.status_code, flower.asked) == (413, 0)
    assert refused.json()["extra"] == "a message of 67,108,865 bytes; the largest has 67,108,864"
    assert ask(study, flower, "/v1/fleet/push-object", headers={"content-length": str(LARGEST_BODY)}).is_success


def test_a_body_of_no_announced_length_is_refused(study: Study) -> None:
    flower = Flower()
    assert ask(study, flower, "/v1/fleet/push-object", headers={"transfer-encoding": "chunked"}).status_code == 411
    assert flower.asked == 0


def test_who_is_refused_learns_why_and_so_does_the_coordinator(study: Study) -> None:
    flower = Flower(400, b'{"code": 7, "detail": "no"}')
    unknown, mercy = key(study, "u"), key(study, "m")
    study.admit("mercy", study.folder / "m.pub")
    activate = "/v1/fleet/activate-node"
    answer = ask(study, flower, activate, headers=signed(unknown)).json()
    assert (answer["code"], answer["detail"]) == (7, "no")
    assert answer["extra"].startswith(f"the unknown key {unknown.fingerprint} is not enrolled; the study's lead runs")
    assert "is connected already" in ask(study, flower, activate, headers=signed(mercy)).json()["extra"]
    study.revoke("mercy")
    extra = ask(study, flower, activate, headers=signed(mercy)).json()["extra"]
    assert extra.startswith(f"mercy, whose key {mercy.fingerprint} was revoked; the hospital makes a new key")
    log = study.refusals.read_text().splitlines()
    assert len(log) == 3
    assert f"refused the unknown key {unknown.fingerprint} from {HOSPITAL}" in log[0]


@pytest.mark.parametrize(("late", "says"), [(600, "its clock is 600 s behind"), (-600, "its clock is 600 s ahead")])
def test_a_wrong_clock_is_told(study: Study, late: float, says: str) -> None:
    mercy = key(study, "m")
    study.admit("mercy", study.folder / "m.pub")
    refused = ask(study, Flower(401, b"{}"), "/v1/fleet/pull-messages", headers=signed(mercy, late))
    assert refused.json()["extra"].startswith(f"mercy: {says}")


def test_one_refusal_is_logged_once_a_minute(study: Study) -> None:
    guard = Guard(Flower(), study)
    scope = {"type": "http", "path": "/docs", "headers": [], "client": (HOSPITAL, 1)}
    for reason in ("one", "one", "another", "one"):
        guard.log(scope, reason)
    assert [line.rpartition(" ")[2] for line in study.refusals.read_text().splitlines()] == ["one", "another"]


def test_a_site_that_asks_whether_it_is_known_learns_its_name_and_is_not_called_refused(study: Study) -> None:
    mercy = key(study, "m")
    study.admit("mercy", study.folder / "m.pub")
    flower = Flower(400, b'{"code": 2003, "detail": "Invalid heartbeat interval."}')
    answer = ask(study, flower, "/v1/fleet/activate-node", headers=signed(mercy)).json()
    assert answer == {"code": 2003, "detail": "Invalid heartbeat interval.", "site": "mercy"}
    assert not study.refusals.exists()
