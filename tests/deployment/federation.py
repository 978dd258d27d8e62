"""A real deployment on this machine for tests: the command line's own processes, sockets, certificates and keys."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from protocol.settings import ROOT
from tests.client.hospitals import WITHOUT_PRIVACY
from tests.waiting import wait

START_SECONDS = 120.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def words(*command: object, root: Path = ROOT) -> list[str]:
    """The words of a `fedurwkv` command of the code in `root`."""
    return [sys.executable, str(root / "fedurwkv.py"), *map(str, command)]


def fedurwkv(*command: object, seconds: float = 300, code: int = 0, prefix: tuple[str, ...] = ()) -> str:
    """Run a command to its end, `prefix` being words before it; what it printed on both streams."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    line = [*prefix, *words(*command)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=seconds, env=environment, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@dataclass
class Running:
    """A command that runs on, and where it writes."""

    process: "subprocess.Popen[bytes]"
    log: Path

    def wait_for(self, text: str, seconds: float = START_SECONDS) -> None:
        """Wait until it has printed `text`."""
        wait(lambda: text in self.log.read_text(), seconds, lambda: f"no {text!r} in:\n{self.log.read_text()}")

    def end(self, seconds: float = 30) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)


@contextmanager
def running(log: Path, *command: object, prefix: tuple[str, ...] = (), root: Path = ROOT) -> Iterator[Running]:
    """A command of the code in `root` that runs on inside the `with`; no process of it is left behind."""
    own = {"OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(root)}
    with program(log, [*prefix, *words(*command, root=root)], own) as one:
        yield one


@contextmanager
def program(log: Path, command: list[str], own: Mapping[str, str]) -> Iterator[Running]:
    """A program that runs on inside the `with`, `own` being variables of its environment; it is not left behind."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file, env={**os.environ, **own})
    one = Running(process, log)
    try:
        yield one
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


@dataclass
class Deployment:
    """A study on the loopback address and the hospitals that were made for it."""

    folder: Path
    port: int = field(default_factory=free_port)

    @property
    def study(self) -> Path:
        return self.folder / "study"

    def init(self, host: str = "127.0.0.1", listen: str = "127.0.0.1") -> None:
        """Make the study, which hospitals reach by `host`."""
        where = ["--listen", listen, "--port", self.port, "--health", f"127.0.0.1:{free_port()}"]
        fedurwkv("coordinator", "init", self.study, "--name", host, *where)

    def hospital(
        self,
        data: Path,
        *,
        enroll: bool = True,
        host: str = "127.0.0.1",
        privacy: Mapping[str, object] = WITHOUT_PRIVACY,
    ) -> Path:
        """Make a hospital by the commands of the page, with `data` as its data, and enrol it."""
        folder = self.folder / f"h-{data.name}"
        fedurwkv("site", "init", folder)
        (folder / "ca.crt").write_bytes((self.study / "ca.crt").read_bytes())
        path = folder / "site.yaml"
        content = yaml.safe_load(path.read_text())
        content |= {"data": str(data), "device": "cpu"}
        content["allow"] |= {"scalars": "any", "decimals": 17}
        content["privacy"] = dict(privacy)
        content["connection"] |= {"name": data.name, "coordinator": f"{host}:{self.port}", "threads": 1}
        path.write_text(yaml.safe_dump(content))
        fedurwkv("site", "keygen", folder)
        if enroll:
            fedurwkv("coordinator", "enroll", self.study, data.name, folder / "site.pub")
        return folder

    @contextmanager
    def coordinator(self, prefix: tuple[str, ...] = ()) -> Iterator[Running]:
        log = self.folder / "coordinator.log"
        with running(log, "coordinator", "start", self.study, prefix=prefix) as one:
            one.wait_for("serves ")
            yield one

    @contextmanager
    def site(self, hospital: Path, prefix: tuple[str, ...] = ()) -> Iterator[Running]:
        log = self.folder / f"{hospital.name}.log"
        with running(log, "site", "start", hospital, prefix=prefix) as one:
            yield one

    @contextmanager
    def sites(self, hospitals: list[Path], prefixes: list[tuple[str, ...]] | None = None) -> Iterator[list[Running]]:
        """All of them, once they are connected; each behind its own words before the command, if any."""
        before = prefixes or [()] * len(hospitals)
        with contextlib.ExitStack() as stack:
            started = [stack.enter_context(self.site(*each)) for each in zip(hospitals, before, strict=True)]
            for one in started:
                one.wait_for("connected: ")
            yield started


def left_over(folder: Path) -> list[str]:
    """The command lines of processes that name `folder` in their words or environment."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (process / "cmdline").read_bytes()
            if (
                process.name != str(os.getpid())
                and str(folder).encode() in command + (process / "environ").read_bytes()
            ):
                found.append(command.replace(b"\0", b" ").decode())
    return found
