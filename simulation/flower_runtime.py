"""Flower's simulation runtime on Ray, as `flwr run` starts it: a SuperLink of its own for one run.

The SuperLink listens on the loopback address alone, keeps its files in the run's folder, installs nothing, and
ends with the run.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

import torch
from flwr.proto.federation_config_pb2 import SimulationConfig

from client.cores import cores
from protocol.errors import DeploymentError, RunError
from protocol.flower import environment
from protocol.settings import Table
from server.status import read_status
from server.superlink import Control

MARK = "FEDURWKV_RUNTIME"
"""Environment variable by which every process of a runtime is known."""

START_SECONDS = 60.0
STOP_SECONDS = 20.0
ASK_EVERY = 15.0
"""Seconds between two questions to the SuperLink how the run stands, should it die without a word."""


class FlowerRuntime:
    """A SuperLink in simulation mode, from `with` to its end.

    Args:
        table: the run's complete table; `run.out` is where logs and Flower's home lie.
    """

    def __init__(self, table: Table) -> None:
        self.run = Path(str(table["run.out"])).resolve()
        self.home = self.run / "flower"
        self.log = self.home / "superlink.log"
        self.run_id = 0
        self._address = ""
        self._asked = 0.0
        self._ended = False

    def __enter__(self) -> "FlowerRuntime":
        if shutil.which(_tool("flower-superlink")) is None:
            raise RunError("the ray engine needs Flower's command line: pip install 'flwr[simulation]'")
        port = _free_port()
        self.home.mkdir(parents=True, exist_ok=True)
        self._address = f"127.0.0.1:{port}"
        command = [
            _tool("flower-superlink"),
            "--insecure",
            "--simulation",
            "--disable-runtime-dependency-installation",
        ]
        with self.log.open("ab") as log:
            self._superlink = subprocess.Popen(
                [*command, "--port", str(port)],
                stdout=log,
                stderr=log,
                env=environment(self.home) | {MARK: str(self.home)},
                start_new_session=True,  # so that the whole family of processes can be ended
            )
        try:
            self._wait_for(port)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End every process of the runtime: Flower and Ray start theirs in sessions of their own."""
        until = time.monotonic() + STOP_SECONDS
        family: set[int] = set()
        while (family := _alive(family | self._family())) and time.monotonic() < until:
            sign = signal.SIGTERM if time.monotonic() < until - STOP_SECONDS / 2 else signal.SIGKILL
            for process in family:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, sign)
            self._superlink.poll()  # so that it does not stay a zombie
            time.sleep(0.2)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._superlink.wait(1.0)  # it may have ended since it was last asked

    def _family(self) -> set[int]:
        """The processes that carry this runtime's mark in their environment, and their descendants.

        Ray's agents write their title over their environment, so they are known by their parents alone.
        """
        mark = f"{MARK}={self.home}".encode()
        family: set[int] = set()
        children: dict[int, list[int]] = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # ended meanwhile, or another user's
                children.setdefault(_parent(folder), []).append(int(folder.name))
                if mark in (folder / "environ").read_bytes().split(b"\0"):
                    family.add(int(folder.name))
        new = family
        while new:
            new = {child for parent in new for child in children.get(parent, [])} - family
            family |= new
        return family

    def submit(self, table: Table, sites: int) -> None:
        """Hand the app and its settings to the SuperLink; the run starts at once.

        Raises:
            DeploymentError: Flower refused it.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() and table["train.device"] != "cpu" else 0
        simulation = SimulationConfig(
            num_supernodes=sites,
            client_resources_num_cpus=int(table["train.threads"]),
            client_resources_num_gpus=1.0 if gpus else 0.0,
            init_args_num_cpus=cores(),
        )
        with Control(self._address, None) as control:
            self.run_id = control.start(table, simulation)

    def is_over(self, seconds: float) -> bool:
        """After `seconds`: has the server app said that it is done or has failed, or the run ended without a word?"""
        time.sleep(seconds)
        if read_status(self.run).get("phase") in ("done", "failed"):
            return True
        if self._superlink.poll() is not None:
            self._ended = True
        elif time.monotonic() - self._asked > ASK_EVERY:
            self._asked = time.monotonic()
            with contextlib.suppress(DeploymentError), Control(self._address, None) as control:  # asked again later
                self._ended = control.state(self.run_id).over
        return self._ended

    def check(self) -> None:
        """RunError unless the server app has said that it is done."""
        status = read_status(self.run)
        if status.get("phase") == "failed":
            raise RunError(str(status.get("error")))
        if status.get("phase") != "done":
            raise RunError(f"the run ended in phase {status.get('phase')!r} without a word; see {self.log}")

    def _wait_for(self, port: int) -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and self._superlink.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1.0)
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.1)
        raise RunError(f"Flower's SuperLink did not start within {START_SECONDS:.0f} s; see {self.log}")


def _parent(folder: Path) -> int:
    """The parent of the process that `folder` of /proc describes (proc_pid_stat(5): after the name and the state)."""
    return int((folder / "stat").read_text().rpartition(")")[2].split()[1])


def _alive(processes: set[int]) -> set[int]:
    """Those that still run; a zombie has only its parent left to tell."""
    alive = set()
    for process in processes:
        with contextlib.suppress(OSError):
            if (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                alive.add(process)
    return alive


def _tool(name: str) -> str:
    """A program of the environment that this Python belongs to."""
    return str(Path(sys.executable).parent / name)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
