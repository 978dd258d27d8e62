"""What stands before the SuperLink's one port, on which Flower serves three interfaces.

Sites speak to the Fleet API, and every call is signed by a site's key. The Control API, which starts runs and admits
sites, and the Runtime API, which hands tasks to server apps, ask nobody who they are: so they are open to this
machine alone. Bodies are bounded before they are read, and whoever is refused learns why, as does the coordinator.
"""

import datetime
import ipaddress
import json
from typing import Any

from flwr.supercore.error import ApiErrorCode
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.refusals import Refusals, send_refusal
from server.study import Study

LARGEST_BODY = 64 * 2**20
"""Bytes of the largest request; Flower cuts a model into pieces of 5 MiB."""

FLEET = "/v1/fleet/"
HEALTH = "/health"

TIME_HEADER = b"flwr-timestamp"

CLOCK_SECONDS = 300
"""Seconds that a site's clock may be late; Flower takes 5 seconds beyond, and 5 of the future."""


class Guard:
    """ASGI middleware around the SuperLink's application.

    Args:
        app: what is guarded.
        study: whose keys are known, and where refusals are logged.
    """

    def __init__(self, app: ASGIApp, study: Study) -> None:
        self._app = app
        self._study = study
        self._refusals = Refusals(study.refusals)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse what may not pass; pass on the rest, and put a reason into Flower's own refusals."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        if not path.startswith(FLEET) and path != HEALTH and not _is_local(scope):
            await self._refuse(scope, send, 403, f"{path} is open to the coordinator's own machine only")
        elif (length := _length(headers)) is None:
            await self._refuse(scope, send, 411, f"a request to {path} does not say how long it is")
        elif length > LARGEST_BODY:
            await self._refuse(scope, send, 413, f"a message of {length:,} bytes; the largest has {LARGEST_BODY:,}")
        elif path.startswith(FLEET):
            await self._app(scope, receive, _Explained(self, scope, send))
        else:
            await self._app(scope, receive, send)

    async def _refuse(self, scope: Scope, send: Send, status: int, reason: str) -> None:
        self.log(scope, reason)
        await send_refusal(send, status, reason, (b"connection", b"close"))

    def log(self, scope: Scope, reason: str) -> None:
        """Write a refusal down: by whose key, from where, why."""
        client = scope["client"][0] if scope.get("client") else "somebody"
        self._refusals.note(f"{self.who(scope)} from {client}: {reason}")

    def who(self, scope: Scope) -> str:
        """Whose key signed the call, in words."""
        return self._study.who_signed(dict(scope["headers"]))

    def reason(self, scope: Scope, status: int) -> str:
        """Why Flower refused a call, as far as can be told from without."""
        who = self.who(scope)
        if status == 401 and (late := _late(dict(scope["headers"]))) is not None:
            return f"{who}: its clock is {abs(late):.0f} s {'behind' if late > 0 else 'ahead'}; set it by NTP"
        if "revoked" in who:
            return f"{who}; the hospital makes a new key and asks for its enrolment"
        if "unknown" in who:
            return f"{who} is not enrolled; the study's lead runs: fedurwkv coordinator enroll"
        if scope["path"].endswith("/activate-node"):
            return f"{who} is connected already, or was until a moment ago; it is let in again within a minute or two"
        return f"{who}: {scope['path']} was refused with status {status}"


class _Explained:
    """Passes a response on; a refusal waits until it is whole and gets the reason beside Flower's own words."""

    def __init__(self, guard: Guard, scope: Scope, send: Send) -> None:
        self._guard, self._scope, self._send = guard, scope, send
        self._start: Message | None = None
        self._body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            self._start = message
        elif self._start is None:
            await self._send(message)
        else:
            self._body += message.get("body", b"")
            if not message.get("more_body"):
                await self._finish(self._start)

    async def _finish(self, start: Message) -> None:
        words = _json(self._body)
        if words.get("code") == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:  # a site asks whether it is known
            words["site"] = self._guard.who(self._scope)
        elif self._scope["path"].endswith("/activate-node") or start["status"] == 401:
            reason = self._guard.reason(self._scope, start["status"])
            words["extra"] = " ".join(filter(None, [words.get("extra"), reason]))
            self._guard.log(self._scope, reason)
        body = json.dumps(words).encode()
        headers = [(name, value) for name, value in start["headers"] if name != b"content-length"]
        headers.append((b"content-length", str(len(body)).encode()))
        await self._send({**start, "headers": headers})
        await self._send({"type": "http.response.body", "body": body})


def _json(body: bytes) -> dict[str, Any]:
    try:
        words = json.loads(body)
    except ValueError:
        words = None
    return words if isinstance(words, dict) else {"detail": body.decode(errors="replace")}


def _length(headers: dict[bytes, bytes]) -> int | None:
    """The announced length of a body; 0 without one, None when it comes in pieces of unknown number."""
    if b"transfer-encoding" in headers:
        return None
    text = headers.get(b"content-length", b"0")
    return int(text) if text.isdigit() else None


def _is_local(scope: Scope) -> bool:
    client = scope.get("client")
    return client is not None and ipaddress.ip_address(client[0]).is_loopback


def _late(headers: dict[bytes, bytes]) -> float | None:
    """Seconds by which the caller's clock is behind (negative: ahead), when that is why it was refused."""
    try:
        signed = datetime.datetime.fromisoformat(headers[TIME_HEADER].decode())
        late = (datetime.datetime.now(datetime.UTC) - signed).total_seconds()
    except (KeyError, ValueError, TypeError):
        return None
    return late if not -5 < late < CLOCK_SECONDS + 5 else None
