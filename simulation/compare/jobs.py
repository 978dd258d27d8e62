"""Running what is not finished yet: in this process one run after the other, or several at once, each in its own."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from rich.console import Console

from protocol.errors import FedURWKVError, StoppedError
from protocol.settings import ROOT, Table, defaults, load_scenario
from server.app import check_same_run
from simulation.compare.contestants import Job
from simulation.simulate import simulate

log = logging.getLogger("fedurwkv.compare")

LOOK_EVERY = 0.2
"""Seconds between two looks at the processes."""

Failures = dict[str, str]
"""Why a run did not finish, by its name."""


def gpus(table: Table) -> list[str]:
    """The GPUs that runs may use, as CUDA_VISIBLE_DEVICES names them; none on the CPU or when one GPU is named."""
    if table["train.device"] not in ("auto", "cuda") or not torch.cuda.is_available():
        return []
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return [word.strip() for word in named.split(",")] if named else list(map(str, range(torch.cuda.device_count())))


def place(folder: Path, job: Job) -> Path:
    """The folder of a run."""
    return folder / "runs" / job.name


def is_finished(folder: Path, job: Job) -> bool:
    """Whether a run is over.

    Raises:
        RunError: the run in its folder has other settings.
    """
    run = place(folder, job)
    if (run / "settings.yaml").is_file():
        check_same_run(load_scenario(run / "settings.yaml"), job.table, run)
    return (run / "result.json").is_file() and (run / "report.html").is_file()


def run_jobs(folder: Path, jobs: Sequence[Job], engine: str, at_once: int, console: Console) -> Failures:
    """Finish all runs; those that fail are told and left out, the others go on.

    Args:
        at_once: how many runs side by side.

    Raises:
        RunError: a folder holds a run with other settings.
        StoppedError: the user stopped the work.
    """
    left = [job for job in jobs if not is_finished(folder, job)]
    if len(left) < len(jobs):
        console.print(f"{len(jobs) - len(left)} of {len(jobs)} runs are finished already", highlight=False)
    for job in left:
        _prepare(place(folder, job), job)
    if at_once == 1 and not any(job.program for job in left):
        return _one_by_one(folder, left, engine, console)
    return _side_by_side(folder, left, engine, at_once, console)


def _prepare(run: Path, job: Job) -> None:
    """The run's folder, with a link to the sites that it shares."""
    run.mkdir(parents=True, exist_ok=True)
    if job.sites is not None and not (run / "sites").exists():
        (run / "sites").symlink_to(os.path.relpath(job.sites.resolve(), run.resolve()), target_is_directory=True)


def _one_by_one(folder: Path, jobs: Sequence[Job], engine: str, console: Console) -> Failures:
    failed: Failures = {}
    for number, job in enumerate(jobs, 1):
        console.print(f"\nrun {number} of {len(jobs)}: {job.name}", style="bold", highlight=False)
        run = place(folder, job)
        try:
            simulate(None, engine, _sets(job.table), run, (run / "settings.yaml").is_file(), console)
        except StoppedError:
            raise
        except Exception as error:  # whatever ends one run must not take the others' hours with it
            log.debug("%s failed", job.name, exc_info=True)
            failed[job.name] = str(error) if isinstance(error, FedURWKVError) else f"{type(error).__name__}: {error}"
            console.print(f"failed: {failed[job.name]}", style="red", highlight=False, markup=False, soft_wrap=True)
    return failed


@dataclass
class _Child:
    """A run in a process of its own, the GPU it has, and where its words go."""

    job: Job
    process: subprocess.Popen[bytes]
    gpu: str
    log: IO[bytes]


def _side_by_side(folder: Path, jobs: Sequence[Job], engine: str, at_once: int, console: Console) -> Failures:
    waiting, running, failed = list(jobs), list[_Child](), Failures()
    devices = gpus(jobs[0].table) if jobs else []
    free = [devices[slot % len(devices)] if devices else "" for slot in range(at_once)]
    try:
        while waiting or running:
            while free and (job := _next(waiting, running)):
                waiting.remove(job)
                running.append(_start(folder, job, engine, free.pop(0)))
                console.print(f"{running[-1].job.name}: begins, {len(waiting)} wait", highlight=False, markup=False)
            for child in [child for child in running if child.process.poll() is not None]:
                running.remove(child)
                free.append(child.gpu)
                _tell(folder, child, failed, console)
            time.sleep(LOOK_EVERY)
    except KeyboardInterrupt:
        with _patient():
            for child in running:
                child.process.send_signal(signal.SIGINT)
            for child in running:
                child.process.wait()
        raise StoppedError("stopped; every finished round is kept") from None
    finally:
        for child in running:
            child.log.close()
    return failed


def _next(waiting: Sequence[Job], running: Sequence[_Child]) -> Job | None:
    """The first that waits for none of the others; None while all do, or none is left."""
    not_over = {job.name for job in (*waiting, *(child.job for child in running))}
    return next((job for job in waiting if job.after not in not_over), None)


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Ctrl-C again, while runs write their last words, changes nothing."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


def _start(folder: Path, job: Job, engine: str, gpu: str) -> _Child:
    run = place(folder, job)
    words = ["simulate", "--engine", engine, "--out", str(run)]
    words += ["--resume"] if (run / "settings.yaml").is_file() else []
    for assignment in _sets(job.table):
        words += ["--set", assignment]
    log = (run / "log.txt").open("wb")
    process = subprocess.Popen(
        [sys.executable, str(job.program or ROOT / "fedurwkv.py"), *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=os.environ | ({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {}),
        process_group=0,  # Ctrl-C in the terminal is the comparison's to answer
    )
    return _Child(job, process, gpu, log)


def _tell(folder: Path, child: _Child, failed: Failures, console: Console) -> None:
    """One line of a run that has ended."""
    child.log.close()
    if child.process.returncode == 0:
        result = json.loads((place(folder, child.job) / "result.json").read_text())
        words = f"test Dice {result['final']['global_dice']:.4f} after {result['seconds']['total']:.0f} s"
        console.print(f"{child.job.name}: {words}", highlight=False, markup=False, soft_wrap=True)
        return
    log = place(folder, child.job) / "log.txt"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    failed[child.job.name] = lines[-1].removeprefix("error: ") if lines else f"ended with {child.process.returncode}"
    console.print(f"{child.job.name}: failed: {failed[child.job.name]}", style="red", markup=False, soft_wrap=True)


def _sets(table: Table) -> list[str]:
    """The settings as the words of `--set`: those that are not the defaults."""
    usual = defaults()
    return [f"{key}={value}" for key, value in table.items() if usual.get(key) != value]
