"""The kernel's own walls, around real processes."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from client import wall as module
from client.wall import Wall, stay_behind, version

pytestmark = pytest.mark.skipif(not version(), reason="needs a kernel with Landlock")

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc")


@pytest.fixture
def outside() -> Iterator[int]:
    """A process of the same user, with a secret among its open files."""
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as process:
        yield process.pid
        process.kill()


def behind(wall: Wall, code: str) -> str:
    """What a line of the shell prints behind a wall, errors among it."""
    rules = wall.build()
    try:
        begin = partial(stay_behind, rules)
        done = subprocess.run(["sh", "-c", code], capture_output=True, text=True, preexec_fn=begin, check=False)
    finally:
        os.close(rules)
    return done.stdout + done.stderr


@pytest.fixture
def wall(tmp_path: Path) -> Wall:
    for name in ("read", "own", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"in {name}")
    (tmp_path / "alone").write_text("a file")
    read = (*map(Path, SYSTEM), tmp_path / "read", tmp_path / "alone", tmp_path / "never")
    return Wall(read, (tmp_path / "own",))


def test_what_may_be_read_is_read_and_not_changed(wall: Wall, tmp_path: Path) -> None:
    assert behind(wall, f"cat {tmp_path}/read/file {tmp_path}/alone") == "in reada file"
    for code in (
        "echo x > {}/read/file",
        "echo x > {}/alone",
        "touch {}/read/new",
        "rm {}/read/file",
        "mv {0}/read {0}/x",
    ):
        assert "denied" in behind(wall, code.format(tmp_path)), code
    assert (tmp_path / "read" / "file").read_text() == "in read"


def test_what_is_ones_own_is_changed(wall: Wall, tmp_path: Path) -> None:
    own = tmp_path / "own"
    code = f"cd {own}; echo x > file; mkdir a; mv file a/b; ln -s b a/c; cat a/c; rm -r a; ls; echo y > /dev/null"
    assert behind(wall, code) == "x\n"


def test_all_else_is_not_there_for_it_nor_for_its_children(wall: Wall, tmp_path: Path) -> None:
    for code in ("cat {}/hidden/file", "ls {}/hidden", "ls {}", "touch {}/new"):
        for words in (code, f"sh -c '{code}'"):
            assert "denied" in behind(wall, words.format(tmp_path)), words
    secret, way = tmp_path / "hidden" / "file", tmp_path / "own" / "way"
    assert "cross-device" in behind(wall, f"ln {secret} {way}")
    assert "denied" in behind(wall, f"ln -s {secret} {way}; cat {way}")


def test_nobody_looks_into_a_process_outside(wall: Wall, outside: int) -> None:
    for place in ("root/etc/passwd", "fd/0", "mem", "cwd/."):
        assert "denied" in behind(wall, f"head -c 1 /proc/{outside}/{place}"), place


def test_what_is_reached_is_told_also_through_links(wall: Wall, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "read")
    reached = [
        tmp_path / "read",
        tmp_path / "read" / "deep" / "er",
        tmp_path / "link",
        tmp_path / "alone",
        Path("/usr/lib"),
    ]
    assert all(map(wall.reaches, reached))
    assert not any(map(wall.reaches, [tmp_path, tmp_path / "hidden", tmp_path / "reader"]))


@pytest.mark.parametrize("old", [1, 2])
def test_an_older_kernel_forbids_what_it_knows(
    wall: Wall, tmp_path: Path, old: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "version", lambda: old)
    assert "denied" in behind(wall, f"cat {tmp_path}/hidden/file")
    assert behind(wall, f"cat {tmp_path}/read/file") == "in read"


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="Landlock: Bad file descriptor"):
        stay_behind(-1)
