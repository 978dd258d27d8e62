"""A coordinator and hospitals in network namespaces of their own, each hospital at the end of a link that can be cut.

The coordinator has one address, which every hospital reaches by its own link: a veth pair, or a slow line. A slow
line is a pair of TUN devices; the kernel's token bucket bounds their rate, and a process carries the packets from one
to the other a while later. (`netem` would do both, but not every kernel has it.)
"""

import contextlib
import ctypes
import fcntl
import json
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

COORDINATOR = "10.77.0.1"

CLONE_NEWNET = 0x40000000  # setns(2)
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000  # linux/if_tun.h

PACKET = 65536
"""Bytes of the largest IP packet."""

WAITING = "0.4s"
"""How long a packet may wait for the rate before it is dropped, as in a router with a bounded buffer."""


class NotPermittedError(Exception):
    """This machine does not let the test make namespaces and devices."""


@dataclass
class Network:
    """Namespaces `NAME-c` of the coordinator and `NAME-1`, `NAME-2` ... of the hospitals, and their links."""

    name: str = field(default_factory=lambda: f"fu{os.getpid()}")
    spaces: list[str] = field(default_factory=list)
    lines: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    @property
    def coordinator(self) -> tuple[str, ...]:
        """The words before a command that runs at the coordinator."""
        return _inside(self.spaces[0])

    def hospital(self, number: int) -> tuple[str, ...]:
        """The words before a command that runs at a hospital; they count from 1."""
        return _inside(self.spaces[number])

    def open(self) -> None:
        """Make the coordinator's namespace.

        Raises:
            NotPermittedError: this machine does not allow it.
        """
        space = self._space("c")
        _ip("-n", space, "address", "add", f"{COORDINATOR}/32", "dev", "lo")

    def add_hospital(self, *, one_way: float = 0.0, rate: str = "") -> None:
        """Make the next hospital's namespace and its link.

        Args:
            one_way: seconds that a packet takes; 0 for a veth pair.
            rate: of a slow line, in words of `tc`, like 1mbit.
        """
        number = len(self.spaces)
        center, edge = self.spaces[0], self._space(str(number))
        ends = ((center, f"h{number}", f"10.77.{number}.1"), (edge, "uplink", f"10.77.{number}.2"))
        if rate:
            for space, device, _ in ends:
                _ip("-n", space, "tuntap", "add", "dev", device, "mode", "tun")
                limits = ["rate", rate, "burst", "4kb", "latency", WAITING]
                _run("tc", "-n", space, "qdisc", "add", "dev", device, "root", "tbf", *limits)
        else:
            peer = ["peer", "name", "uplink", "netns", edge]
            _ip("link", "add", f"h{number}", "netns", center, "type", "veth", *peer)
        for space, device, address in ends:
            _ip("-n", space, "address", "add", f"{address}/24", "dev", device)
            _ip("-n", space, "link", "set", device, "up")
        _ip("-n", edge, "route", "add", COORDINATOR, "via", f"10.77.{number}.1")
        if rate:
            words = json.dumps([[space, device] for space, device, _ in ends])
            self.lines.append(subprocess.Popen([sys.executable, __file__, words, str(one_way)]))

    def cut(self, number: int) -> None:
        """Take the link of a hospital down, at the coordinator's end."""
        _ip("-n", self.spaces[0], "link", "set", f"h{number}", "down")

    def mend(self, number: int) -> None:
        """Take it up again."""
        _ip("-n", self.spaces[0], "link", "set", f"h{number}", "up")

    def round_trip(self, number: int, port: int) -> float:
        """Seconds that a hospital takes to open a connection to the coordinator: one round trip.

        The better of two: the first may come before the line's process does.
        """
        code = (
            "import socket, time\n"
            "for _ in range(2):\n"
            "    began = time.monotonic()\n"
            f"    socket.create_connection(({COORDINATOR!r}, {port}), 30).close()\n"
            "    print(time.monotonic() - began)\n"
        )
        done = _run(*self.hospital(number), sys.executable, "-c", code)
        return min(map(float, done.split()))

    def close(self) -> None:
        """End every process in the namespaces, the lines too, and remove them."""
        for line in self.lines:
            line.terminate()
            line.wait()
        for space in self.spaces:
            for process in _run("ip", "netns", "pids", space).split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
            _ip("netns", "delete", space)

    def _space(self, name: str) -> str:
        space = f"{self.name}-{name}"
        _ip("netns", "add", space)
        self.spaces.append(space)
        _ip("-n", space, "link", "set", "lo", "up")
        return space


@contextlib.contextmanager
def network() -> Iterator[Network]:
    """A network with a coordinator and without hospitals; nothing of it is left over.

    Raises:
        NotPermittedError: this machine does not let the test make namespaces.
    """
    one = Network()
    try:
        one.open()
        yield one
    finally:
        one.close()


def _inside(space: str) -> tuple[str, ...]:
    return ("ip", "netns", "exec", space)


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> str:
    """What a command prints.

    Raises:
        NotPermittedError: it is not there, or failed.
    """
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=90, check=False)
    except FileNotFoundError as error:
        raise NotPermittedError(f"the program {words[0]} is missing") from error
    if done.returncode:
        raise NotPermittedError(f"{' '.join(words)}: {done.stderr.strip()}")
    return done.stdout


def carry(ends: list[tuple[str, str]], one_way: float) -> None:
    """Be the slow line between two TUN devices, each named by its namespace and its own name, until a signal."""
    one, other = (_device(space, name) for space, name in ends)
    for source, sink in ((one, other), (other, one)):
        under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
        threading.Thread(target=_take, args=(source, under_way, one_way), daemon=True).start()
        threading.Thread(target=_give, args=(sink, under_way), daemon=True).start()
    signal.pause()


def _take(source: int, under_way: "queue.SimpleQueue[tuple[float, bytes]]", one_way: float) -> None:
    while True:
        packet = os.read(source, PACKET)
        under_way.put((time.monotonic() + one_way, packet))


def _give(sink: int, under_way: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
    while True:
        due, packet = under_way.get()
        time.sleep(max(0.0, due - time.monotonic()))
        with contextlib.suppress(OSError):  # a device that is down takes nothing
            os.write(sink, packet)


def _device(space: str, name: str) -> int:
    """The open TUN device `name` of a namespace; it stays this process's wherever the process goes."""
    with Path("/run/netns", space).open() as file:
        if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns to {space}")
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return device


if __name__ == "__main__":
    carry(json.loads(sys.argv[1]), float(sys.argv[2]))
