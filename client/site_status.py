"""`fedurwkv site status`: whether the hospital's two programs run, and what they did last."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.hospital import Hospital

LINES = 5
"""Lines of the trainer's log that are shown."""

SECONDS = 5.0


def status(hospital: Hospital) -> Iterator[str]:
    """The lines to print."""
    words = running(hospital)
    if not words:
        yield f"{hospital.name} is not running; start it with: fedurwkv site start {hospital.folder}"
        return
    minutes = (time.time() - words["since"]) / 60
    way = f"{words['connection']} to {hospital.coordinator}" if "connection" in words else "the trainer alone runs,"
    yield f"{hospital.name}: {way} for {minutes:.0f} min"
    yield f"trainer: {'ready' if is_ready(hospital) else 'not ready'}"
    log = hospital.state / "trainer.log"
    if log.is_file():
        yield from log.read_text(errors="replace").splitlines()[-LINES:]


def running(hospital: Hospital) -> dict[str, Any]:
    """What `fedurwkv site start` noted; empty when it does not run."""
    words: dict[str, Any] = {}
    for path in sorted(hospital.state.glob("running*.json"), reverse=True):  # the connection's words last
        noted = json.loads(path.read_text())
        words |= noted if Path(f"/proc/{noted['pid']}").exists() else {}
    return words


def is_ready(hospital: Hospital) -> bool:
    """Whether the trainer's health service says that it serves."""
    with grpc.insecure_channel(f"unix:{hospital.socket}") as channel:
        asked = health_pb2.HealthCheckRequest(service="fedurwkv.Trainer")
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=SECONDS)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
