"""Whether a SuperNode can still do its work, or has to be started anew.

It waits for ever for the answer of a courier that ended before it had its message, and does nothing without its
SuperExec. In both cases it looks well from outside: it is connected, and a study waits for it in vain.
"""

import time

from client.program import Program
from protocol.superexec import LOOK_EVERY, PROGRAM, SuperExecWatch, children

LOST_SECONDS = 20.0
"""How long a message may be without a courier before it counts as lost; one comes within a second or so."""

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
        self._process, self._looked = 0, 0.0
        self._waits = self._told = False
        self._alone: float | None = None

    def hear(self, line: str) -> None:
        """Take a line of the SuperNode's log."""
        if RECEIVED in line:
            self._waits = True
        elif ANSWERED in line:
            self._waits = False

    def look(self) -> str:
        """Why the SuperNode is to be started anew, told once; empty when it is well, or not running."""
        if self._supernode.process is None or time.monotonic() - self._looked < LOOK_EVERY:
            return ""
        self._looked = time.monotonic()
        if self._supernode.process.pid != self._process:
            self._process, self._alone = self._supernode.process.pid, None
            self._waits = self._told = False
        reason = "" if self._told else self._reason()
        self._told = self._told or bool(reason)
        return reason

    def _reason(self) -> str:
        if self._executor.ended(self._process):
            return f"its {PROGRAM} has ended"
        if not self._waits or self._has_courier():
            self._alone = None
        elif self._alone is None:
            self._alone = time.monotonic()
        elif time.monotonic() - self._alone > LOST_SECONDS:
            return "a courier has ended without an answer"
        return ""

    def _has_courier(self) -> bool:
        parents = children(self._process, PROGRAM)
        if self._courier.process is not None:
            parents.append(self._courier.process.pid)
        return any(children(parent) for parent in parents)
