import contextlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from client.cores import cores
from protocol.errors import RoundError, RunError
from protocol.settings import ROOT, resolve
from simulation.engines import lanes, threads_a_site
from simulation.flower_runtime import MARK
from simulation.simulate import simulate
from tests.client.phantoms import SMALL

SETS = [f"{key}={value}" for key, value in SMALL.items()]


def run(out: Path, engine: str, *sets: str) -> dict[str, bytes]:
    """The last and the best weights of a tiny federation, by file and tensor."""
    simulate(None, engine, [*SETS, *sets], out, False, Console(quiet=True))
    return {
        f"{file}/{name}": array.tobytes()
        for file in ("last", "model")
        for name, array in load_file(out / f"{file}.safetensors").items()
    }


@pytest.mark.parametrize("norm", ["group", pytest.param("batch", marks=pytest.mark.slow)])
def test_local_equals_ray_bit_for_bit(tmp_path: Path, norm: str) -> None:
    local = run(tmp_path / "local", "local", f"model.norm={norm}")
    ray = run(tmp_path / "ray", "ray", f"model.norm={norm}")
    assert local.keys() == ray.keys()
    assert [name for name in local if local[name] != ray[name]] == []


def test_what_the_server_app_raises_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match=r"round 1 has 0 valid replies.*diverged.*lower train\.lr"):
        run(tmp_path / "out", "local", "train.optimizer=sgd", "train.lr=1e20", "train.epochs=2")


def test_cores_go_to_sites_first_and_to_threads_when_there_are_more() -> None:
    on_cpu = {"train.device": "cpu"}
    assert lanes(resolve(on_cpu), 1) == 1
    assert threads_a_site(resolve(on_cpu), 1) == cores()
    assert lanes(resolve(on_cpu), 10 * cores()) == cores()
    assert threads_a_site(resolve(on_cpu), 10 * cores()) == 1
    assert lanes(resolve(on_cpu, {"train.threads": cores()}), 10) == 1


def rays() -> set[str]:
    """The processes of any Ray."""
    titles = {folder.name: (folder / "cmdline") for folder in Path("/proc").glob("[0-9]*")}
    found = set()
    for process, path in titles.items():
        with contextlib.suppress(OSError):
            if any(word in path.read_bytes() for word in (b"ray::", b"raylet", b"gcs_server")):
                found.add(process)
    return found


def marked(home: Path) -> list[str]:
    """The command lines of the processes that belong to a Flower runtime at `home`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"{MARK}={home}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_text().replace("\0", " "))
    return found


@pytest.mark.slow
def test_a_ray_run_that_is_stopped_leaves_no_process_and_goes_on_later(tmp_path: Path) -> None:
    before = rays()
    words = [word for text in (*SETS, "federation.rounds=30") for word in ("--set", text)]
    command = [sys.executable, str(ROOT / "fedurwkv.py"), "simulate", "--engine", "ray", "--out", "run", *words]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    latest = tmp_path / "run" / "checkpoint" / "latest"
    until = time.monotonic() + 120
    while not latest.exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert marked(tmp_path / "run" / "flower") != []
    assert len(rays() - before) > 3
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error.startswith("error: stopped; every finished round is kept")
    assert marked(tmp_path / "run" / "flower") == []
    assert rays() - before == set()
    stopped = latest.read_text()
    time.sleep(3)
    assert latest.read_text() == stopped


@pytest.mark.slow
def test_what_the_server_app_raises_on_ray_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"round 1 has 0 valid replies.*diverged.*lower train\.lr"):
        run(tmp_path / "out", "ray", "train.optimizer=sgd", "train.lr=1e20", "train.epochs=2")
