"""Real programs: their log, their end, their start again."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from client import program as module
from client.program import LINES, LONGEST_PAUSE, SHORTEST_PAUSE, STEADY_SECONDS, Program
from tests.waiting import wait


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.fixture
def python(tmp_path: Path) -> Iterator[Callable[[str], Program]]:
    made: list[Program] = []

    def make(code: str) -> Program:
        command = [sys.executable, "-S", "-c", code]
        made.append(Program("it", lambda: command, tmp_path / "it.log", dict(os.environ)))
        return made[-1]

    yield make
    for program in made:
        if program.process is not None:
            program.end(signal.SIGKILL)
            program.process.wait()


def test_what_it_prints_is_logged_heard_and_its_end_kept_in_mind(python: Callable[[str], Program]) -> None:
    program = python(f"for n in range({LINES + 5}): print('line', n)")
    heard: list[str] = []
    program.heard = heard.append
    program.start()
    wait(lambda: len(heard) == LINES + 5)
    assert program.log.read_text() == "".join(heard)
    wait(lambda: len(program.last) == LINES)
    assert program.last == [f"line {n}" for n in range(5, LINES + 5)]


def test_what_dies_may_start_again_after_a_pause_that_doubles(
    python: Callable[[str], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    program = python("raise SystemExit(3)")
    assert program.died() is None
    pauses = []
    for _ in range(8):
        program.start()
        pauses.append(program.pause)
        assert program.process is not None
        program.process.wait()
        began = time.monotonic()
        assert program.died() == 3
        assert program.process is None
        assert pauses[-1] <= program.again - began < pauses[-1] + 10
    assert pauses == [min(SHORTEST_PAUSE * 2**n, LONGEST_PAUSE) for n in range(8)]
    program.start()
    program.process.wait()
    program.began -= STEADY_SECONDS  # it had run for long
    assert program.died() == 3
    assert program.pause == 2 * SHORTEST_PAUSE


def test_its_whole_family_ends_with_it(python: Callable[[str], Program], tmp_path: Path) -> None:
    child = "import time; time.sleep(600)"
    code = "import subprocess, sys\n"
    code += f"child = subprocess.Popen([sys.executable, '-S', '-c', {child!r}])\n"
    code += "print(child.pid, flush=True)\nchild.wait()"
    program = python(code)
    program.start()
    wait(lambda: program.last)
    pid = int(program.last[0])
    assert alive(pid)
    program.end(signal.SIGTERM)
    assert program.process is not None
    assert program.process.wait(20) == -signal.SIGTERM
    wait(lambda: not alive(pid))
    program.end(signal.SIGKILL)  # of none left: no error


def test_it_dies_with_its_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from client.program import Program\n"
        "command = [sys.executable, '-S', '-c', 'import time; time.sleep(600)']\n"
        f"program = Program('it', lambda: command, Path({str(tmp_path / 'it.log')!r}), dict(os.environ))\n"
        "program.start()\n"
        "print(program.process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = Program("parent", lambda: [sys.executable, str(script)], tmp_path / "parent.log", dict(os.environ))
    parent.start()
    wait(lambda: parent.last)
    pid = int(parent.last[0])
    assert alive(pid)
    assert parent.process is not None
    parent.process.kill()
    parent.process.wait()
    wait(lambda: not alive(pid))


def test_a_log_that_is_too_large_is_put_aside_and_one_older_is_kept(
    python: Callable[[str], Program], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST_LOG", 10)
    program = python("print('a new one')")
    program.log.write_text("an old one, too large")
    program.start()
    wait(lambda: program.log.is_file() and "a new one" in program.log.read_text())
    assert program.log.with_suffix(".log.1").read_text() == "an old one, too large"
