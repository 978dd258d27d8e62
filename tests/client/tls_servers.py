"""Coordinators for tests of the way to one: real HTTPS on the loopback address, with certificates of choice."""

import datetime
import email.utils
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from server.certificates import make_authority, make_server_certificate

LONG_AGO = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)


def make_certificates(folder: Path, *, hosts: tuple[str, ...] = ("a.example",), expired: bool = False) -> Path:
    """An authority (ca.crt, ca.key) and a server certificate (server.crt, server.key) in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = (folder / "ca.crt", folder / "ca.key")
    make_authority(*pair, "test")
    start, days = (LONG_AGO, 30) if expired else (None, 30)
    make_server_certificate(folder / "server.crt", folder / "server.key", pair, hosts, start, days)
    return folder


@contextmanager
def https(
    certificates: Path | None, late: float = 0.0, host: str = "127.0.0.1", answer: bytes = b""
) -> Iterator[int]:
    """A server that answers everything with an error and says that it is `late` seconds later; its port.

    The error is status 404, or 400 with the body `answer`. Without certificates it speaks plain HTTP.
    """

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.send_response_only(400 if answer else 404)
            self.send_header("Date", email.utils.formatdate(time.time() + late, usegmt=True))
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            if self.command == "POST":
                self.wfile.write(answer)

        do_HEAD = do_POST = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    class Server(HTTPServer):
        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a handshake that the client broke off

    server = Server((host, 0), Handler)
    if certificates is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificates / "server.crt", certificates / "server.key")
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
