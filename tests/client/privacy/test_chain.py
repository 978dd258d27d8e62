"""The chain of records: damage is seen, kills are survived, two writers take turns."""

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from client.privacy.chain import HEAD, LINES, Chain
from protocol.errors import LedgerError

ROOT = Path(__file__).resolve().parents[3]

# Kills itself at the k-th line of code that runs in chain.py or atomic.py; says what has returned.
WRITER = """
import os, signal, sys
from pathlib import Path
from client.privacy.chain import Chain
folder, moment, first = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
seen = 0
def trace(frame, event, arg):
    global seen
    if not frame.f_code.co_filename.endswith(("privacy/chain.py", "protocol/atomic.py")):
        return None
    if event == "line":
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)
    return trace
sys.settrace(trace)
if not first:
    Chain(folder).create({"value": -1})
    os.write(1, b".")
for number in range(2):
    Chain(folder).append(lambda records: {"value": len(records)})
    os.write(1, b".")
"""


def chain_of(folder: Path, values: int) -> Chain:
    chain = Chain(folder)
    chain.create({"value": 0})
    for value in range(1, values):
        chain.append(lambda records, value=value: {"value": value})
    return chain


def values(chain: Chain) -> list[int]:
    return [record["value"] for record in chain.read()]


def test_what_was_added_is_read_back_with_the_ones_before_it(tmp_path: Path) -> None:
    chain = chain_of(tmp_path / "privacy", 3)
    seen: list[int] = []
    chain.append(lambda records: seen.extend(record["value"] for record in records) or {"value": 9})
    assert seen == [0, 1, 2]
    assert values(chain) == [0, 1, 2, 9]


def test_a_record_that_is_refused_is_not_added(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, 2)
    with pytest.raises(ZeroDivisionError):
        chain.append(lambda records: {"value": 1 // 0})
    assert values(chain) == [0, 1]


def test_every_changed_byte_is_seen(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, 3)
    for name in (LINES, HEAD):
        whole = (tmp_path / name).read_bytes()
        for place in range(0, len(whole), 7):
            changed = bytearray(whole)
            changed[place] ^= 1
            (tmp_path / name).write_bytes(changed)
            with pytest.raises(LedgerError, match="damaged or was changed"):
                chain.read()
        (tmp_path / name).write_bytes(whole)
    assert values(chain) == [0, 1, 2]


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_a_truncated_end_is_seen_and_nothing_can_be_added(tmp_path: Path, kept: int) -> None:
    chain = chain_of(tmp_path, 3)
    lines = (tmp_path / LINES).read_bytes().splitlines(keepends=True)
    (tmp_path / LINES).write_bytes(b"".join(lines[:kept]))
    with pytest.raises(LedgerError, match=f"has {kept} lines where 3 were written"):
        chain.append(lambda records: {"value": 3})
    (tmp_path / LINES).write_bytes(b"".join(lines[:2]) + lines[2][:20])
    with pytest.raises(LedgerError, match="has 2 lines where 3 were written"):
        chain.read()


def test_an_older_copy_a_missing_file_and_swapped_lines_are_seen(tmp_path: Path) -> None:
    chain = chain_of(tmp_path / "a", 2)
    shutil.copy(tmp_path / "a" / LINES, tmp_path / "old")
    chain.append(lambda records: {"value": 2})
    chain.append(lambda records: {"value": 3})
    whole = (tmp_path / "a" / LINES).read_bytes()
    for text in ((tmp_path / "old").read_bytes(), b"".join(sorted(whole.splitlines(keepends=True), reverse=True))):
        (tmp_path / "a" / LINES).write_bytes(text)
        with pytest.raises(LedgerError, match="damaged or was changed"):
            chain.read()
    (tmp_path / "a" / LINES).unlink()
    with pytest.raises(LedgerError, match=r"ledger\.jsonl is missing"):
        chain.read()
    (tmp_path / "a" / LINES).write_bytes(whole)
    (tmp_path / "a" / HEAD).unlink()
    with pytest.raises(LedgerError, match=r"head\.json is missing"):
        chain.read()
    with pytest.raises(LedgerError, match="holds a ledger already"):
        chain.create({"value": 0})


def test_a_line_beyond_the_head_counts_and_two_do_not_fit(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, 2)
    head = (tmp_path / HEAD).read_bytes()
    chain.append(lambda records: {"value": 2})
    (tmp_path / HEAD).write_bytes(head)
    assert values(chain) == [0, 1, 2]
    chain.append(lambda records: {"value": 3})
    assert json.loads((tmp_path / HEAD).read_bytes())["count"] == 4
    (tmp_path / HEAD).write_bytes(head)
    with pytest.raises(LedgerError, match="does not belong"):
        chain.read()


def test_a_torn_line_that_never_returned_goes_with_the_next_one(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, 2)
    with (tmp_path / LINES).open("ab") as file:
        file.write(b'{"value": 2, "n": 2')
    assert values(chain) == [0, 1]
    chain.append(lambda records: {"value": 2})
    assert values(chain) == [0, 1, 2]


def test_no_ledger_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no ledger"):
        Chain(tmp_path).read()


def test_many_writers_take_turns(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, 1)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: Chain(tmp_path).append(lambda records: {"value": len(records)}), range(24)))
    assert values(chain) == list(range(25))


def killed_at(folder: Path, moment: int, first: int) -> tuple[int, bool]:
    """How often the writer said that something was done, and whether it was killed."""
    words = [sys.executable, "-c", WRITER, str(folder), str(moment), str(first)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, timeout=60, check=False)
    assert done.returncode in (0, -9), done.stderr.decode()
    return len(done.stdout), done.returncode == -9


def survives(folder: Path, moment: int, first: int) -> bool:
    """Kill a writer at `moment`; nothing that returned is missing, and writing goes on. Whether it was killed."""
    chain = Chain(folder)
    said, killed = killed_at(folder, moment, first)
    if not chain.exists() or not (folder / LINES).exists():
        assert said == 0
        chain.create({"value": -1})
    count = len(chain.read())
    assert first + said <= count <= first + said + 1
    chain.append(lambda records: {"value": 99})
    assert values(chain)[-1] == 99
    assert len(chain.read()) == count + 1
    return killed


@pytest.mark.parametrize("moment", [3, 11, 19, 27, 33, 41, 52, 64, 78, 95])
def test_a_kill_never_loses_what_returned_nor_stops_what_comes(tmp_path: Path, moment: int) -> None:
    assert survives(tmp_path / "privacy", moment, first=0)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_kill_at_every_third_line_of_code_that_writes(tmp_path: Path) -> None:
    kills = 0
    for first in (0, 3):
        moment = 1
        while survives(folder := tmp_path / f"{first}-{moment}", moment, prepared(folder, first)):
            kills += 1
            moment += 3
    assert kills >= 100


def prepared(folder: Path, first: int) -> int:
    if first:
        chain_of(folder, first)
    return first
