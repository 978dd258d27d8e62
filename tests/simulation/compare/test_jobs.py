"""Which GPUs runs may use, and which runs are finished."""

from pathlib import Path

import pytest
import torch

from protocol.errors import RunError
from protocol.settings import Table, dump
from simulation.compare.contestants import Job
from simulation.compare.jobs import gpus, is_finished, place
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
