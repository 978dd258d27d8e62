"""Flower's SuperLink, seen from beside it: its Control API.

A run's settings travel as one JSON object in the setting `overrides`, however many they are.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
from flwr.cli.build import build_fab_from_disk
from flwr.common.serde import fab_to_proto, user_config_to_proto
from flwr.proto.control_pb2 import (
    ListNodesRequest,
    ListRunsRequest,
    RegisterNodeRequest,
    StartRunRequest,
    StopRunRequest,
    UnregisterNodeRequest,
)
from flwr.proto.federation_config_pb2 import SimulationConfig
from flwr.supercore.control import ControlHttpClient
from flwr.supercore.error import FlowerError
from flwr.supercore.fab import Fab
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

from protocol.errors import DeploymentError
from protocol.keys import PublicKey, public_key_from_pem
from protocol.settings import OVERRIDES, ROOT, Table

ANSWER_SECONDS = 30.0


@dataclass(frozen=True)
class Node:
    """A SuperNode that the SuperLink knows: Flower's id of it, its name, its key, and whether it is connected."""

    id: int
    name: str
    key: PublicKey
    online: bool


@dataclass(frozen=True)
class RunState:
    """How a run stands, in Flower's words: "running", "finished:completed"; and the details of its end."""

    status: str
    details: str

    @property
    def over(self) -> bool:
        return self.status.startswith("finished")


class Control:
    """The Control API of a SuperLink, inside its `with` block.

    Args:
        address: HOST:PORT.
        ca: the certificate authority's file; None: no TLS, for a SuperLink on the loopback address alone.
    """

    def __init__(self, address: str, ca: Path | None) -> None:
        self.address = address
        self._client = ControlHttpClient.from_server_address(
            server_address=address,
            insecure=ca is None,
            root_certificates=ca.read_bytes() if ca else None,
            interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def start(self, table: Table, simulation: SimulationConfig | None = None) -> int:
        """Hand the app and its settings over; the run starts at once.

        Returns:
            The run's id.

        Raises:
            DeploymentError: the SuperLink does not answer, or refuses.
        """
        content = build_fab_from_disk(ROOT)
        fab = Fab(hashlib.sha256(content).hexdigest(), content, {})
        config = user_config_to_proto({OVERRIDES: json.dumps(table)})
        request = StartRunRequest(
            fab=fab_to_proto(fab), override_config=config, override_federation_config=simulation
        )
        answer = self._ask("start-run", self._client.StartRun, request)
        if not answer.run_id:
            raise DeploymentError(f"the SuperLink refused the run: its app has {len(content):,} bytes, too many")
        return int(answer.run_id)

    def state(self, run: int) -> RunState:
        """How a run stands."""
        answer = self._ask("list-runs", self._client.ListRuns, ListRunsRequest(run_id=run))
        status = answer.run_dict[run].status
        return RunState(":".join(filter(None, [status.status, status.sub_status])), status.details)

    def stop(self, run: int) -> None:
        """Stop a run."""
        self._ask("stop-run", self._client.StopRun, StopRunRequest(run_id=run))

    def nodes(self) -> list[Node]:
        """The SuperNodes that may take part."""
        answer = self._ask("list-nodes", self._client.ListNodes, ListNodesRequest())
        return [
            Node(info.node_id, info.name, public_key_from_pem(info.public_key), info.status == "online")
            for info in answer.nodes_info
            if info.status != "unregistered"
        ]

    def admit(self, name: str, key: PublicKey) -> None:
        """Let the SuperNode with this key take part."""
        self._ask("register-node", self._client.RegisterNode, RegisterNodeRequest(public_key=key.pem, name=name))

    def expel(self, node: int) -> None:
        """Let a SuperNode take part no longer; its next call is refused."""
        self._ask("unregister-node", self._client.UnregisterNode, UnregisterNodeRequest(node_id=node))

    def _ask(self, what: str, call, request):  # type: ignore[no-untyped-def]
        try:
            return call(request)
        except httpx.HTTPStatusError as error:
            flower = FlowerError.from_json(error.response.text)
            reason = " ".join(filter(None, [flower.message, flower.public_details])) if flower else str(error)
            raise DeploymentError(f"the SuperLink refused {what}: {reason}") from error
        except httpx.HTTPError as error:
            raise DeploymentError(
                f"no SuperLink answers on {self.address} ({error}); is it running? fedurwkv coordinator start"
            ) from error
