"""Real handshakes over real sockets, with the event loop that the SuperLink runs on."""

import asyncio
import contextlib
import http.client
import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from server.certificates import make_authority, make_server_certificate
from server.handshakes import tell_handshakes
from server.study import Study, make_study
from tests.client.tls_servers import LONG_AGO


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    monkeypatch.setattr(ssl.SSLContext, "sslobject_class", ssl.SSLObject)  # put back afterwards
    study = make_study(tmp_path / "study", ["a.example"])
    study.refusals.touch()
    tell_handshakes(study)
    return study


def said(study: Study, call: Callable[[int], None]) -> list[str]:
    """What the log says once `call` has called the port of a server that shows the study's certificate."""

    async def work() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(await reader.read(1))
            await writer.drain()
            writer.close()

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(study.certificate, study.certificate_key)
        server = await asyncio.start_server(answer, "127.0.0.1", 0, ssl=context)
        async with server:
            await asyncio.to_thread(call, server.sockets[0].getsockname()[1])
            until = time.monotonic() + 2
            while not study.refusals.read_text() and time.monotonic() < until:
                await asyncio.sleep(0.01)

    uvloop.run(work())
    return study.refusals.read_text().splitlines()


def caller(ca: Path, name: str) -> Callable[[int], None]:
    """A caller over TLS that trusts `ca` and calls the server `name`; it sends a byte and reads one."""

    def call(port: int) -> None:
        context = ssl.create_default_context(cafile=str(ca))
        with (
            contextlib.suppress(ssl.SSLCertVerificationError),
            socket.create_connection(("127.0.0.1", port), 10) as line,
            context.wrap_socket(line, server_hostname=name) as safe,
        ):
            safe.sendall(b"x")
            assert safe.recv(1) == b"x"

    return call


def test_a_sound_handshake_leaves_no_word(study: Study) -> None:
    assert said(study, caller(study.ca, "a.example")) == []


def test_a_caller_with_another_authority(study: Study, tmp_path: Path) -> None:
    make_authority(tmp_path / "other.crt", tmp_path / "other.key", "other")
    (line,) = said(study, caller(tmp_path / "other.crt", "a.example"))
    assert "refused a caller at the handshake: it does not know the authority of server.crt" in line


def test_a_caller_by_another_name(study: Study) -> None:
    (line,) = said(study, caller(study.ca, "b.example"))
    assert "server.crt is for a.example, and it calls by another name; add" in line


def test_a_caller_to_whom_the_certificate_has_expired(study: Study) -> None:
    pair = (study.ca, study.folder / "ca.key")
    make_server_certificate(study.certificate, study.certificate_key, pair, study.hosts, LONG_AGO, 30)
    (line,) = said(study, caller(study.ca, "a.example"))
    assert "to it server.crt has expired; fedurwkv coordinator renew" in line


def test_plain_http(study: Study) -> None:
    def call(port: int) -> None:
        line = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        with contextlib.suppress(OSError, http.client.HTTPException):
            line.request("GET", "/health")
            line.getresponse()
        line.close()

    (line,) = said(study, call)
    assert line.endswith("it speaks plain HTTP, and this port TLS alone")


def test_a_caller_that_is_no_caller_of_tls_at_all(study: Study) -> None:
    def call(port: int) -> None:
        with socket.create_connection(("127.0.0.1", port), 10) as line:
            line.sendall(b"\x00" * 64)
            with contextlib.suppress(OSError):
                line.recv(64)

    (line,) = said(study, call)
    assert "TLS failed (" in line


def test_a_caller_that_only_knocks_leaves_no_word(study: Study) -> None:
    assert said(study, lambda port: socket.create_connection(("127.0.0.1", port), 10).close()) == []
