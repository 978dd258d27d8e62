"""Whether a SuperNode can still do its work, or has to be started anew.

It waits for ever for the answer of a courier that ended before it had its message, and does nothing without its
SuperExec. In both cases it looks well from outside: it is connected, and a study waits for it in vain.
"""

import time

from flwr.common.constant import HEARTBEAT_DEFAULT_INTERVAL, HEARTBEAT_PATIENCE

from client.program import Program
from protocol.superexec import LOOK_EVERY, PROGRAM, SuperExecWatch, children

LOST_SECONDS = 1.5 * HEARTBEAT_PATIENCE * HEARTBEAT_DEFAULT_INTERVAL
"""How long a message may be without a courier before it counts as lost. One comes within a second or so; after half a
minute Flower starts another for one that never began, and after one it answers for one that had its message."""

RECEIVED, ANSWERED = "Received successfully", "Sending:"
"""What a SuperNode says when it has a message, and when it has the answer."""


class SuperNodeWatch:
    """Looks at a SuperNode's family, and hears what it says.

    Args:
        supernode: may be started anew.
        courier: whose children couriers are, but for those that the SuperNode's own SuperExec starts.
    """

    def __init__(self, supernode: Program, courier: Program) -> None:
        self._supernode, self._courier = supernode, courier
        self._executor = SuperExecWatch()
        self._process, self._looked, self._told = 0, 0.0, False
        self._waiting = 0  # the process that waits for an answer, which another thread hears
        self._alone: float | None = None

    def hear(self, line: str) -> None:
        """Take a line of the SuperNode's log."""
        if RECEIVED in line:
            self._waiting = self._running()
            self._alone = None
        elif ANSWERED in line:
            self._waiting = 0

    def look(self) -> str:
        """Why the SuperNode is to be started anew, told once; empty when it is well, or not running."""
        running = self._running()
        if not running or time.monotonic() - self._looked < LOOK_EVERY:
            return ""
        self._looked = time.monotonic()
        if running != self._process:
            self._process, self._alone, self._told = running, None, False
        reason = "" if self._told else self._reason()
        self._told = self._told or bool(reason)
        return reason

    def _reason(self) -> str:
        if self._executor.ended(self._process):
            return f"its {PROGRAM} has ended"
        alone = self._alone
        if self._waiting != self._process or self._may_have_courier():
            self._alone = None
        elif alone is None:
            self._alone = time.monotonic()
        elif time.monotonic() - alone > LOST_SECONDS:
            return "a courier has ended without an answer"
        return ""

    def _may_have_courier(self) -> bool:
        """Whether a courier is seen, or nothing is, not even who starts them."""
        parents, courier = children(self._process, PROGRAM), self._courier.process
        if not parents:
            return True
        if courier is not None:
            parents.append(courier.pid)
        return any(children(parent) for parent in parents)

    def _running(self) -> int:
        """The SuperNode's process; 0 while it has none."""
        process = self._supernode.process
        return 0 if process is None else process.pid
