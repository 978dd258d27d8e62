"""Flower's simulation runtime on Ray, as `flwr run` starts it: a SuperLink of its own for one run.

The SuperLink listens on the loopback address alone, keeps its files in the run's folder, installs nothing, and
ends with the run.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch

from client.cores import cores
from protocol.errors import RunError
from protocol.settings import ROOT, Table
from server.status import read_status

MARK = "FEDURWKV_RUNTIME"
"""Environment variable by which every process of a runtime is known."""

START_SECONDS = 60.0
SUBMIT_SECONDS = 120.0
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
        self.run_id = ""
        self._asked = 0.0
        self._ended = False

    def __enter__(self) -> "FlowerRuntime":
        if shutil.which(_tool("flower-superlink")) is None:
            raise RunError("the ray engine needs Flower's command line: pip install 'flwr[simulation]'")
        port = _free_port()
        self.home.mkdir(parents=True, exist_ok=True)
        connection = f'[superlink.fedurwkv]\naddress = "127.0.0.1:{port}"\ninsecure = true\n'
        (self.home / "config.toml").write_text(connection)
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
                env=self._environment(),
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
            RunError: Flower refused it.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() and table["train.device"] != "cpu" else 0
        federation = f"num-supernodes={sites} client-resources-num-cpus={table['train.threads']}"
        federation += f" client-resources-num-gpus={1.0 if gpus else 0.0} init-args-num-cpus={cores()}"
        config = self.home / "run.toml"
        config.write_text(f"overrides = {json.dumps(json.dumps(table))}\n")
        answer = self._flwr(
            "run", str(ROOT), "fedurwkv", "--run-config", str(config), "--federation-config", federation
        )
        if not answer.get("success"):
            raise RunError(f"Flower refused the run: {answer.get('error-message', answer)}; see {self.log}")
        self.run_id = str(answer["run-id"])

    def is_over(self, seconds: float) -> bool:
        """After `seconds`: has the server app said that it is done or has failed, or the run ended without a word?"""
        time.sleep(seconds)
        if read_status(self.run).get("phase") in ("done", "failed"):
            return True
        if self._superlink.poll() is not None:
            self._ended = True
        elif time.monotonic() - self._asked > ASK_EVERY:
            self._asked = time.monotonic()
            with contextlib.suppress(RunError, subprocess.TimeoutExpired):  # asked again later
                runs = self._flwr("list", "--run-id", self.run_id).get("runs", [])
                self._ended = bool(runs) and str(runs[0].get("status", "")).startswith("finished")
        return self._ended

    def check(self) -> None:
        """RunError unless the server app has said that it is done."""
        status = read_status(self.run)
        if status.get("phase") == "failed":
            raise RunError(str(status.get("error")))
        if status.get("phase") != "done":
            raise RunError(f"the run ended in phase {status.get('phase')!r} without a word; see {self.log}")

    def _flwr(self, *words: str) -> dict[str, Any]:
        """Ask Flower's command line; its JSON answer."""
        done = subprocess.run(
            [_tool("flwr"), *words, "--format", "json"],
            capture_output=True,
            text=True,
            timeout=SUBMIT_SECONDS,
            env=self._environment(),
            check=False,
        )
        start = done.stdout.find("{")
        try:
            answer: dict[str, Any] = json.loads(done.stdout[start:])
        except ValueError as error:
            raise RunError(f"flwr {words[0]} failed: {(done.stderr or done.stdout).strip()[-400:]}") from error
        return answer

    def _environment(self) -> dict[str, str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
        return os.environ | {
            MARK: str(self.home),
            "FLWR_HOME": str(self.home),
            "FLWR_TELEMETRY_ENABLED": "0",
            "PATH": path,
        }

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
