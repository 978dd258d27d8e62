import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from client import warm_courier
from client.warm_courier import NAME, write_launcher
from tests.client.hospitals import short_folder


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as path:
        write_launcher(path / "programs", path / "couriers")
        yield path


def launch(folder: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([folder / "programs" / NAME, *words], capture_output=True, text=True, check=False)


def test_without_warm_couriers_the_launcher_is_the_program_itself(folder: Path) -> None:
    assert "Run a Flower ClientApp" in launch(folder, "--help").stdout


@pytest.mark.slow
def test_a_warm_courier_takes_the_command_line_over_and_begins_at_once(folder: Path) -> None:
    words = [sys.executable, warm_courier.__file__, str(folder / "couriers")]
    log = folder / "log"
    with log.open("w") as file, subprocess.Popen(words, stdout=file, stderr=file) as couriers:
        try:
            until = time.monotonic() + 60
            while "couriers are ready" not in log.read_text() and time.monotonic() < until:
                time.sleep(0.1)
            assert (folder / "couriers").stat().st_mode & 0o777 == 0o600
            began = time.monotonic()
            done = launch(folder, "--help")
            while "Run a Flower ClientApp" not in log.read_text() and time.monotonic() < began + 30:
                time.sleep(0.01)
            seconds = time.monotonic() - began
            assert (done.returncode, done.stdout) == (0, "")
            assert "Run a Flower ClientApp" in log.read_text()
            assert seconds < 2
            launch(folder, "--no-such-word")
            while "unrecognized arguments" not in log.read_text() and time.monotonic() < began + 30:
                time.sleep(0.01)
            assert couriers.poll() is None
        finally:
            couriers.terminate()
