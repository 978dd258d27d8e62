import json
import time
from pathlib import Path

import pytest

from protocol.atomic import write_atomic
from protocol.keys import PublicKey, make_key_pair
from protocol.settings import dump, resolve
from server import study_status
from server.study import Study, make_study
from server.study_status import REFUSALS, status
from server.superlink import Node, RunState
from tests.finished_run import SITES, write_journal
from tests.server.study_controls import FakeControl

ROUNDS = 12


@pytest.fixture
def control(monkeypatch: pytest.MonkeyPatch) -> type[FakeControl]:
    fresh = type("Control", (FakeControl,), {})
    monkeypatch.setattr(study_status, "Control", fresh)
    return fresh


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", ["a.example"])


def enrolled(study: Study, name: str) -> PublicKey:
    made = make_key_pair(study.folder / name, study.folder / f"{name}.pub", name)
    study.admit(name, study.folder / f"{name}.pub")
    return made


def a_run(study: Study, done: int) -> Path:
    """A run of which `done` rounds are finished, all but the last scored."""
    run = study.runs / "first"
    run.mkdir(parents=True)
    (run / "settings.yaml").write_text(dump(resolve({"federation.rounds": ROUNDS})))
    (run / "run.json").write_text('{"id": 7}')
    if done:
        write_journal(run, done, ROUNDS)
    return run


def say(run: Path, **words: object) -> None:
    write_atomic(run / "status.json", json.dumps({"at": time.time(), **words}))


def test_who_is_connected_before_there_is_a_run(study: Study, control: type[FakeControl]) -> None:
    mercy, charity = enrolled(study, "mercy"), enrolled(study, "charity")
    enrolled(study, "hope")
    control.online = (Node(1, "mercy", mercy, True), Node(2, "charity", charity, False))
    first, *sites = status(study)
    assert first == f"study {study.folder}, a.example; certificate valid for 730 days"
    assert sites == ["site charity: not connected", "site hope: not connected", "site mercy: connected"]


def test_a_run_that_goes_on(study: Study, control: type[FakeControl]) -> None:
    run = a_run(study, 4)
    quick, slow = SITES[0][0], SITES[3][0]
    for name in (quick, slow):
        enrolled(study, name)
    say(run, phase="train", round=5, waiting=[slow], began=time.time() - 100)
    lines = list(status(study))
    assert f"site {quick}: not connected, has answered" in lines
    (line,) = [line for line in lines if line.startswith(f"site {slow}: ")]
    assert line.startswith(f"site {slow}: not connected, train of round 5 for 1 min 40 s, slow: ")
    assert line.endswith(" is usual")
    (line,) = [line for line in lines if line.startswith("run first: ")]
    assert line.startswith("run first: running, 4 of 12 rounds, global Dice 0.")
    assert " left" in line
    assert "failed" not in " ".join(lines)


def test_a_site_within_its_usual_time_is_not_called_slow(study: Study, control: type[FakeControl]) -> None:
    run = a_run(study, 4)
    name = SITES[0][0]  # 301 images at 0.02 s
    enrolled(study, name)
    say(run, phase="train", round=5, waiting=[name], began=time.time() - 8)
    (line,) = [line for line in status(study) if line.startswith(f"site {name}: ")]
    assert line == f"site {name}: not connected, train of round 5 for 8 s"


def test_a_run_that_failed_in_its_first_round(study: Study, control: type[FakeControl]) -> None:
    run = a_run(study, 0)
    control.status = RunState("finished:failed", "")
    say(run, phase="failed", error="round 1 has 0 valid replies", waiting=[])
    assert list(status(study))[1:] == [
        "run first: finished:failed, 0 of 12 rounds",
        "failed: round 1 has 0 valid replies",
    ]


def test_who_was_left_out_of_the_last_round(study: Study, control: type[FakeControl]) -> None:
    a_run(study, 3)
    assert "left out of round 3: shantou: update refused: 2 of 412,033 values are not finite" in list(status(study))


def test_the_last_refusals_are_shown(study: Study, control: type[FakeControl]) -> None:
    lines = [f"2026 refused {number}" for number in range(REFUSALS + 3)]
    study.refusals.write_text("\n".join(lines) + "\n")
    assert list(status(study))[1:] == lines[-REFUSALS:]
