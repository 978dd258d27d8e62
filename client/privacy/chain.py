"""Records that can be added and never taken away unseen: a file of lines, each holding the hash of the one before.

    FOLDER/ledger.jsonl    one JSON object a line; `hash` is the SHA-256 of the line without it, `previous` that of
                           the line before
    FOLDER/head.json       how many lines there are, and the hash of the last: a cut-off end is seen by it
    FOLDER/lock            held while a line is added

A line is on disk before the head is, and the head before `append` returns. So after a kill there is, beside what was
returned for, at most one line more than the head says, which counts, or a torn line, which never returned and goes.
Whoever may write both files can forge both; what is found out is damage, truncation and careless editing.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from protocol.atomic import write_atomic
from protocol.errors import LedgerError, RunError
from protocol.lock import hold

Record = dict[str, Any]

LINES, HEAD, LOCK = "ledger.jsonl", "head.json", "lock"
PATIENCE = 10.0  # seconds to wait for another process that adds a line
START = "0" * 64


class Chain:
    """The records of one folder.

    Raises (all methods): LedgerError when lines and head do not fit together.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def exists(self) -> bool:
        """Whether there is anything here, sound or not."""
        return any((self.folder / name).exists() for name in (LINES, HEAD))

    def create(self, record: Record) -> None:
        """Begin with a first record; only where nothing is, or where beginning was cut short.

        The head comes first here: it cannot be lost unseen, even before the first line is on disk.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if (self.folder / LINES).exists() or (self.exists() and self._head()[0] != 1):
                raise LedgerError(f"{self.folder} holds a ledger already: use it, or choose another folder")
            line, mark = _sealed(record, 0, START)
            self._write_head(1, mark)
            write_atomic(self.folder / LINES, line)

    def read(self) -> list[Record]:
        """All records, each checked."""
        return self._read()[0]

    def append(self, make: Callable[[list[Record]], Record]) -> Record:
        """Add the record that `make` makes of all before; it is durable when this returns.

        No other process adds one in between. Whatever `make` raises, nothing is added.
        """
        self.read()  # where there is nothing, there is nothing to lock either
        with self._locked():
            records, sound = self._read()
            record = make(records)
            last = records[-1]["hash"]
            self._write_head(len(records), last)
            line, mark = _sealed(record, len(records), last)
            with (self.folder / LINES).open("r+b") as file:
                file.truncate(sound)
                file.seek(sound)
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            self._write_head(len(records) + 1, mark)
        return record

    def _read(self) -> tuple[list[Record], int]:
        """The records, and the bytes that they take: what lies beyond is a torn line."""
        path = self.folder / LINES
        if not self.exists():
            raise LedgerError(
                f"{self.folder} holds no ledger; for patients whose images were never trained on, at the site:"
                " fedurwkv site budget DIR --open"
            )
        count, mark = self._head()
        if not path.exists():
            raise self._broken(f"{LINES} is missing" + (": opening it was cut short" if count == 1 else ""))
        *whole, _ = path.read_bytes().split(b"\n")
        records: list[Record] = []
        previous = START
        for number, line in enumerate(whole):
            record = _opened(line)
            if record is None or record.get("n") != number or record.get("previous") != previous:
                raise self._broken(f"line {number + 1} of {LINES} is not what was written")
            previous = record["hash"]
            records.append(record)
        if len(records) < count:
            raise self._broken(f"{LINES} has {len(records)} lines where {count} were written")
        if len(records) > count + 1 or records[count - 1]["hash"] != mark:
            raise self._broken(f"{HEAD} does not belong to {LINES}")
        return records, sum(len(line) + 1 for line in whole)

    def _head(self) -> tuple[int, str]:
        try:
            head = json.loads((self.folder / HEAD).read_bytes())
            count, mark = head["count"], head["hash"]
        except FileNotFoundError as error:
            raise self._broken(f"{HEAD} is missing") from error
        except (KeyError, TypeError, ValueError) as error:
            raise self._broken(f"{HEAD} cannot be read") from error
        if type(count) is not int or count < 1:
            raise self._broken(f"{HEAD} counts {count!r} lines")
        return count, str(mark)

    def _write_head(self, count: int, mark: str) -> None:
        write_atomic(self.folder / HEAD, json.dumps({"count": count, "hash": mark}))

    def _broken(self, what: str) -> LedgerError:
        return LedgerError(
            f"the privacy ledger in {self.folder} is damaged or was changed: {what}; nothing is trained on this site"
            f" until {LINES} and {HEAD} are put back together from one copy of that folder"
        )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        taken = f"another process writes to the privacy ledger in {self.folder}"
        until = time.monotonic() + PATIENCE
        while True:
            lock = hold(self.folder / LOCK, taken)
            try:
                lock.__enter__()
                break
            except RunError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)
        try:
            yield
        finally:
            lock.__exit__(None, None, None)


def _sealed(record: Record, number: int, previous: str) -> tuple[bytes, str]:
    """The record as a line, with its place and its hash put in, and that hash."""
    record |= {"n": number, "previous": previous}
    record["hash"] = _hash(record)
    return json.dumps(record).encode() + b"\n", record["hash"]


def _opened(line: bytes) -> Record | None:
    """The record of a line, None when the line is not what its hash says."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and record.get("hash") == _hash(record) else None


def _hash(record: Record) -> str:
    words = {key: value for key, value in record.items() if key != "hash"}
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()
