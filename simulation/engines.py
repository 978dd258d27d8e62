"""What carries the messages of a simulation: this process (`local`) or Flower's runtime on Ray (`ray`).

Either runs the same `server.app:app` and `client.app:app`; the server works beside the caller, who watches the
run's folder meanwhile.
"""

import threading
from collections.abc import Callable
from typing import Any

import torch
from flwr.app import Context, RecordDict

from client.app import app as client_app
from client.app import stop_trainers
from client.cores import cores
from protocol.settings import Table
from server.app import app as server_app
from simulation.attacks import with_attack
from simulation.flower_runtime import FlowerRuntime
from simulation.local_grid import RUN_ID, LocalGrid

Watch = Callable[[Callable[[float], bool]], None]
"""Watches a run until the function it is given, which waits up to so many seconds, says that the run is over."""

ENGINES = ("local", "ray")

SERVER_NODE = 0


def lanes(table: Table, sites: int) -> int:
    """How many sites compute side by side on this machine: one a GPU, or on the CPU one a core.

    Small networks gain little from a second thread and lose much when it waits for a busy core, so cores go to
    sites first and to threads within a site (`train.threads`) only when there are more cores than sites.
    """
    name = str(table["train.device"])
    gpus = torch.cuda.device_count() if torch.cuda.is_available() and name != "cpu" else 0
    if gpus:
        return min(sites, gpus) if name == "auto" else 1
    threads = int(table["train.threads"])
    return min(sites, cores() // threads if 0 < threads <= cores() else cores())


def threads_a_site(table: Table, sites: int) -> int:
    """CPU threads of each site's torch: as set, or this machine's cores divided among the lanes."""
    return int(table["train.threads"]) or max(1, cores() // lanes(table, sites))


def run_local(table: Table, sites: int, watch: Watch) -> None:
    """Run the federation in this process, one thread a lane, with the server in a thread of its own.

    Raises:
        FedURWKVError: what the server app raised.
        KeyboardInterrupt: the caller interrupted `watch`; server and trainers have stopped by then.
    """
    grid = LocalGrid(with_attack(client_app, table), sites, lanes(table, sites), dict(table))
    server = _Server(lambda: server_app(grid, Context(RUN_ID, SERVER_NODE, {}, RecordDict(), dict(table))))
    server.start()
    try:
        watch(server.is_over)
    finally:
        stop_trainers()
        grid.close()
        server.join()
    if server.error is not None:
        raise server.error


def run_ray(table: Table, sites: int, watch: Watch) -> None:
    """Run the federation in Flower's simulation runtime, its clients as Ray actors.

    Raises:
        RunError: the runtime did not start, or the run failed; the message is the server app's own.
    """
    with FlowerRuntime(table) as runtime:
        runtime.submit(table, sites)
        watch(runtime.is_over)
        runtime.check()


class _Server(threading.Thread):
    """A thread that keeps what its work raised."""

    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__(name="server", daemon=True)
        self._work = work
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self._work()
        except BaseException as error:  # handed to the thread that waits, which raises it
            self.error = error

    def is_over(self, seconds: float) -> bool:
        """Whether the work has ended, after waiting for its end up to `seconds`."""
        self.join(seconds)
        return not self.is_alive()
