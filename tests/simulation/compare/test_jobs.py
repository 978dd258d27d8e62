"""Which GPUs runs may use, which runs are finished, and in what order and where they are begun."""

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from protocol.errors import RunError
from protocol.settings import Table, dump
from simulation.compare import jobs as module
from simulation.compare.contestants import Job
from simulation.compare.jobs import gpus, is_finished, place, run_jobs
from tests.client.phantoms import small


@pytest.mark.parametrize(
    ("visible", "device", "expected"),
    [("", "auto", ["0", "1"]), ("3, 5", "auto", ["3", "5"]), ("", "cuda:1", []), ("3,5", "cpu", [])],
)
def test_each_run_gets_a_gpu_that_the_user_has_left_visible(
    monkeypatch: pytest.MonkeyPatch, visible: str, device: str, expected: list[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(small(train_device=device)) == expected


def test_on_a_machine_without_gpus_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpus(small()) == []


def test_a_run_is_finished_when_it_has_result_and_report(tmp_path: Path) -> None:
    def job(table: Table) -> Job:
        return Job("fedavg-seed0", "fedavg", 0, "", table, None)

    run = place(tmp_path, job(small()))
    assert not is_finished(tmp_path, job(small()))
    run.mkdir(parents=True)
    (run / "settings.yaml").write_text(dump(small()))
    (run / "result.json").write_text("{}")
    assert not is_finished(tmp_path, job(small()))
    (run / "report.html").write_text("")
    assert is_finished(tmp_path, job(small()))
    assert is_finished(tmp_path, job(small(tracking_uri="sqlite:///elsewhere.db")))  # touches no weight
    with pytest.raises(RunError, match=r"begun with train\.batch = 4, not 8"):
        is_finished(tmp_path, job(small(train_batch=8)))


PROGRAM = """
import json, os, pathlib, sys, time
run = pathlib.Path(sys.argv[sys.argv.index("--out") + 1])
began = time.monotonic()
while run.name == "start" and not (run.parent / "overtakes" / "result.json").is_file():
    time.sleep(0.01)
(run / "report.html").touch()
told = {"began": began, "ended": time.monotonic(), "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}
if run.name == "fails":
    sys.exit("error: no luck")
(run / "result.json").write_text(json.dumps({"final": {"global_dice": 0.5}, "seconds": {"total": 1.0}} | told))
"""


def test_a_run_waits_for_the_one_that_it_comes_after_and_others_overtake_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)

    def job(name: str, after: str = "") -> Job:
        return Job(name, "", 0, "", small(), None, after, program)

    jobs = [job("start"), job("fails"), job("waits", "start"), job("lives", "fails"), job("overtakes")]
    monkeypatch.setattr(module, "gpus", lambda table: ["4", "7"])
    failed = run_jobs(tmp_path, jobs, "local", 2, Console(file=io.StringIO()))
    assert failed == {"fails": "no luck"}
    names = ("start", "waits", "lives", "overtakes")
    told = {name: json.loads((tmp_path / "runs" / name / "result.json").read_text()) for name in names}
    assert told["waits"]["began"] > told["start"]["ended"]
    assert [told[name]["gpu"] for name in ("start", "lives", "overtakes")] == ["4", "7", "7"]
    assert run_jobs(tmp_path, jobs[:1], "local", 1, Console(file=io.StringIO())) == {}  # it is finished
