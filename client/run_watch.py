"""While a courier waits for the trainer, the site asks the coordinator whether the courier's run still goes on.

The other end of `client.lifeline`. It is the connection that asks, because the courier runs the coordinator's code
and gets no key.
"""

import contextlib
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Self

import httpx
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supernode.fleet_http_client import FleetHttpClient

from client.connection import fleet_client
from client.hospital import Hospital
from client.lifeline import NAME, OVER
from protocol.keys import read_private_key

ASK_EVERY = 5.0
"""Seconds between two questions, the first as long after the courier began; a short round is never asked about."""

LARGEST = 4096
"""Bytes of a courier's words."""


class RunWatch:
    """Answers the couriers of a hospital inside its `with` block.

    Args:
        hospital: whose; its key signs the questions.
        say: takes a line when a run is over that a courier was still at work for.
    """

    def __init__(self, hospital: Hospital, say: Callable[[str], None]) -> None:
        self._hospital = hospital
        self._say = say
        self._listener = socket.socket(socket.AF_UNIX)

    def __enter__(self) -> Self:
        place = self._hospital.socket.with_name(NAME)
        place.unlink(missing_ok=True)
        before = os.umask(0o177)  # no chmod later: by then the coordinator's code could have put a link there
        try:
            self._listener.bind(str(place))
        finally:
            os.umask(before)
        self._listener.listen()
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                line, _ = self._listener.accept()
                threading.Thread(target=self._watch, args=(line,), daemon=True).start()

    def _watch(self, line: socket.socket) -> None:
        """Ask until the courier hangs up or its run is over."""
        with line, contextlib.suppress(OSError):
            try:
                words = json.loads(line.recv(LARGEST))
                question = GetRunRequest(node=Node(node_id=words["node"]), run_id=words["run"])
            except (ValueError, KeyError, TypeError):  # no courier of ours
                return
            if _is_gone(line):
                return
            with fleet_client(self._hospital, read_private_key(self._hospital.key)) as client:
                while not _is_over(client, question):
                    if _is_gone(line):
                        return
            self._say("the run is over: what is being computed for it is given up")
            line.sendall(OVER)


def _is_gone(line: socket.socket) -> bool:
    """After `ASK_EVERY` seconds, or as soon as it hangs up: whether it did."""
    line.settimeout(ASK_EVERY)
    try:
        return not line.recv(1)
    except TimeoutError:
        return False


def _is_over(client: FleetHttpClient, question: GetRunRequest) -> bool:
    """Whether the coordinator says that the run goes on no longer; one out of reach says nothing."""
    try:
        client.GetRun(question)
    except httpx.HTTPStatusError as error:
        said = FlowerError.from_json(error.response.text)
        return said is not None and said.code == ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED
    except httpx.HTTPError:
        return False
    return False
