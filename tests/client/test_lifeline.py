"""Both ends of a courier's line, over real sockets, with a coordinator that says what it is to say."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.supercore.error import ApiErrorCode

from client import run_watch
from client.hospital import Hospital
from client.lifeline import NAME, lifeline
from client.run_watch import RunWatch
from protocol.keys import make_key_pair
from tests.client.hospitals import hospital_at, short_folder
from tests.client.tls_servers import https, make_certificates

NOT_RUNNING = json.dumps({"code": ApiErrorCode.FLEET_RUN_STATUS_NOT_ALLOWED, "detail": "finished"}).encode()
UNKNOWN = json.dumps({"code": ApiErrorCode.FLEET_GET_RUN_FAILED, "detail": "no such run"}).encode()


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(run_watch, "ASK_EVERY", 0.1)
    with short_folder() as path:
        make_certificates(path / "c")
        yield path


def joined(folder: Path, port: int) -> Hospital:
    words = {"coordinator": f"127.0.0.1:{port}", "ca": str(folder / "c" / "ca.crt")}
    hospital = hospital_at(folder / "h", folder, **words)
    make_key_pair(hospital.key, hospital.public_key, "mercy")
    hospital.socket.parent.mkdir(parents=True)
    return hospital


def told(place: Path, seconds: float) -> bool:
    """Whether a courier of run 1 is told that it is over."""
    over = threading.Event()
    with lifeline(place, 1, 2, over.set):
        return over.wait(seconds)


def test_a_courier_is_told_when_its_run_is_over_and_the_site_says_so(folder: Path) -> None:
    said: list[str] = []
    with https(folder / "c", answer=NOT_RUNNING) as port:
        hospital = joined(folder, port)
        with RunWatch(hospital, said.append):
            place = hospital.socket.with_name(NAME)
            assert place.stat().st_mode & 0o777 == 0o600
            assert told(place, 20)
    assert said == ["the run is over: what is being computed for it is given up"]


@pytest.mark.parametrize("answer", [UNKNOWN, b""], ids=["another refusal", "no words"])
def test_any_other_answer_ends_nothing(folder: Path, answer: bytes) -> None:
    with https(folder / "c", answer=answer) as port:
        hospital = joined(folder, port)
        with RunWatch(hospital, pytest.fail):
            assert not told(hospital.socket.with_name(NAME), 0.5)


def test_a_coordinator_out_of_reach_ends_nothing(folder: Path) -> None:
    with https(folder / "c") as port:
        hospital = joined(folder, port)
    with RunWatch(hospital, pytest.fail):
        assert not told(hospital.socket.with_name(NAME), 0.5)


def test_words_that_are_no_courier_of_ours_are_hung_up_on(folder: Path) -> None:
    hospital = joined(folder, 1)
    with RunWatch(hospital, pytest.fail), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(20)
        line.connect(str(hospital.socket.with_name(NAME)))
        line.sendall(b'{"run": "x"}')
        assert line.recv(1) == b""


def test_a_round_that_ends_by_itself_hangs_up_at_once(folder: Path) -> None:
    with https(folder / "c", answer=NOT_RUNNING) as port:
        hospital = joined(folder, port)
        with RunWatch(hospital, pytest.fail):
            for _ in range(20):
                with lifeline(hospital.socket.with_name(NAME), 1, 2, pytest.fail):
                    pass
            time.sleep(0.3)  # a watch that had missed it would have asked by now


def test_a_courier_works_where_nobody_listens(folder: Path) -> None:
    assert not told(folder / "nobody", 0.1)
