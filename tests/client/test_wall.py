"""The kernel's own walls, around real processes."""

import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from client import refused_calls
from client import wall as module
from client.wall import SCOPED, TRUNCATE_SINCE, Wall, stay_behind, version
from protocol.errors import DeploymentError
from tests.client.behind import python, shell

pytestmark = pytest.mark.skipif(not version(), reason="needs a kernel with Landlock")

SYSTEM = ("/usr", "/bin", "/lib", "/lib64", "/etc", "/proc")


@pytest.fixture
def outside() -> Iterator[int]:
    """A process of the same user, with a secret among its open files."""
    with subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"]) as process:
        yield process.pid
        process.kill()


@pytest.fixture
def wall(tmp_path: Path) -> Wall:
    for name in ("read", "own", "hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(f"in {name}")
    (tmp_path / "alone").write_text("a file")
    read = (*map(Path, SYSTEM), tmp_path / "read", tmp_path / "alone", tmp_path / "never")
    return Wall(read, (tmp_path / "own",))


def test_what_may_be_read_is_read_and_not_changed(wall: Wall, tmp_path: Path) -> None:
    assert shell(wall, f"cat {tmp_path}/read/file {tmp_path}/alone") == "in reada file"
    for code in (
        "echo x > {}/read/file",
        "echo x > {}/alone",
        "touch {}/read/new",
        "rm {}/read/file",
        "mv {0}/read {0}/x",
    ):
        assert "denied" in shell(wall, code.format(tmp_path)), code
    assert (tmp_path / "read" / "file").read_text() == "in read"


def test_what_is_ones_own_is_changed(wall: Wall, tmp_path: Path) -> None:
    own = tmp_path / "own"
    code = f"cd {own}; echo x > file; mkdir a; mv file a/b; ln -s b a/c; cat a/c; rm -r a; ls; echo y > /dev/null"
    assert shell(wall, code) == "x\n"


def test_all_else_is_not_there_for_it_nor_for_its_children(wall: Wall, tmp_path: Path) -> None:
    for code in ("cat {}/hidden/file", "ls {}/hidden", "ls {}", "touch {}/new"):
        for words in (code, f"sh -c '{code}'"):
            assert "denied" in shell(wall, words.format(tmp_path)), words
    secret, way = tmp_path / "hidden" / "file", tmp_path / "own" / "way"
    assert "cross-device" in shell(wall, f"ln {secret} {way}")
    assert "denied" in shell(wall, f"ln -s {secret} {way}; cat {way}")


def test_nobody_looks_into_a_process_outside(wall: Wall, outside: int) -> None:
    for place in ("root/etc/passwd", "fd/0", "mem", "cwd/."):
        assert "denied" in shell(wall, f"head -c 1 /proc/{outside}/{place}"), place


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
    assert "denied" in shell(wall, f"cat {tmp_path}/hidden/file")
    assert shell(wall, f"cat {tmp_path}/read/file") == "in read"
    linked = shell(wall, f"cd {tmp_path}/own; mkdir a; ln file a/b && cat a/b")
    assert ("in own" if old > 1 else "cross-device") in linked  # 1 allows no links between folders at all


@pytest.mark.skipif(version() < TRUNCATE_SINCE, reason="needs Linux 6.2")
def test_what_may_be_read_is_not_cut_short_while_it_is_opened(wall: Wall, tmp_path: Path) -> None:
    cut = os.O_RDONLY | os.O_TRUNC
    assert calls(wall, "open", bytes(tmp_path / "alone"), cut) == "-1 13\n"


def test_of_the_devices_those_alone_are_there_that_tell_nothing(wall: Wall) -> None:
    assert shell(wall, "head -c 1 /dev/zero | wc -c; echo x > /dev/null") == "1\n"
    with tempfile.NamedTemporaryFile(dir="/dev/shm") as shared:
        for code in (f"cat {shared.name}", f"echo x > {shared.name}", "ls /dev/shm", "ls /dev", "cat /dev/ptmx"):
            assert "denied" in shell(wall, code), code


def calls(wall: Wall, *words: object) -> str:
    """What a call of the C library's answers behind a wall."""
    code = f"import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.{words[0]}{words[1:]}, ctypes.get_errno())"
    return python(wall, code)


def test_names_of_files_that_others_open_are_not_told(wall: Wall, tmp_path: Path) -> None:
    for place in ("hidden", "own"):
        assert calls(wall, "inotify_add_watch", 0, bytes(tmp_path / place), 0xFFF) == "-1 1\n"
    assert calls(wall, "fanotify_mark", 0, 1, 0, -100, bytes(tmp_path / "hidden")) == "-1 1\n"


@pytest.mark.parametrize("old", [1, None])
def test_no_file_is_cut_short_by_its_name(
    wall: Wall, tmp_path: Path, old: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "version", lambda: old or version())
    assert calls(wall, "truncate", bytes(tmp_path / "hidden" / "file"), 0) == "-1 1\n"
    assert (tmp_path / "hidden" / "file").read_text() == "in hidden"
    assert shell(wall, f"cd {tmp_path}/own; echo long > file; : > file; cat file") == ""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="this machine has one interface")
def test_the_same_calls_by_another_interface_are_refused(wall: Wall, tmp_path: Path) -> None:
    x32 = refused_calls.X32 | 254
    assert calls(wall, "syscall", x32, 0, bytes(tmp_path / "hidden"), 0xFFF) == "-1 1\n"


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="this machine has one interface")
def test_a_32_bit_interface_is_refused_whole(wall: Wall) -> None:
    getpid = bytes.fromhex("b814000000 cd80 c3")  # mov eax, 20; int 0x80; ret
    code = f"""\
import ctypes, mmap
memory = mmap.mmap(-1, 4096, prot=7)
memory.write({getpid!r})
print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))() > 0, flush=True)
"""
    words = [sys.executable, "-S", "-c", code]
    if subprocess.run(words, capture_output=True, text=True, check=False).stdout != "True\n":
        pytest.skip("this kernel has no 32-bit interface")
    assert python(wall, code) == "False\n"


def test_a_machine_whose_calls_are_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_calls, "CALLS", {})
    with pytest.raises(DeploymentError, match=f"calls on {os.uname().machine} are not known"):
        refused_calls.steps()


@pytest.mark.skipif(version() < SCOPED, reason="needs Landlock 6")
def test_a_socket_with_a_name_and_no_file_is_not_asked(wall: Wall) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("")  # the kernel chooses a name
        listener.listen()
        name = listener.getsockname().decode("latin-1")
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({name.encode('latin-1')!r})"
        assert "PermissionError" in python(wall, code)


def test_a_wall_that_cannot_be_built_leaves_no_file_open(wall: Wall, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(NotADirectoryError):
        replace(wall, read=(tmp_path / "alone" / "x",)).build()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="Landlock: Bad file descriptor"):
        stay_behind(-1)
