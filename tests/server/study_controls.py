"""In the SuperLink's place for tests of what the coordinator makes of its answers."""

from pathlib import Path
from typing import ClassVar, Self

from protocol.errors import DeploymentError
from protocol.settings import Table
from server.superlink import Node, RunState


class FakeControl:
    """A Control API whose answers are the class's own: set them by `monkeypatch`."""

    serving = True
    online: tuple[Node, ...] = ()
    status = RunState("running", "")
    started: ClassVar[Table] = {}
    stopped = 0

    def __init__(self, address: str, ca: Path | None) -> None:
        if not self.serving:
            raise DeploymentError(f"no SuperLink answers on {address}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def nodes(self) -> list[Node]:
        return list(self.online)

    def state(self, run: int) -> RunState:
        return self.status

    def start(self, table: Table) -> int:
        type(self).started = table
        return 7

    def stop(self, run: int) -> None:
        type(self).stopped = run
