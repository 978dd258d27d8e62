"""A comparison in MLflow: one parent, its federations as children, told twice without doubles."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from server.mlflow_comparison import tell
from server.mlflow_log import MlflowLog
from server.tracking import TrackingSettings
from server.tracking_comparison import track_comparison
from tests.finished_run import finished_run

EXPERIMENT = "comparisons"


def comparison(folder: Path) -> Path:
    folder.mkdir(parents=True)
    standing = {"name": "fedavg", "dice": 0.8, "deviation": None, "iou": 0.7, "site_mean": 0.79, "worst_site": 0.6}
    standing |= {"bytes": 10.0, "seconds": 2.0}
    difference = {"name": "fedprox", "interval": {"estimate": 0.01, "low": -0.01, "high": 0.03}}
    found = {"standings": [standing], "differences": [difference], "failed": {}}
    (folder / "compare.json").write_text(json.dumps(found))
    for name in ("compare.html", "compare.csv"):
        (folder / name).write_text("stand-in")
    return folder


def tell_run(run: Path, uri: str) -> None:
    log = MlflowLog(run, uri, EXPERIMENT)
    log.catch_up()
    log.close("FINISHED")


def forget(run: Path) -> None:
    """As if the tracking process had been killed before it could write down which runs it made."""
    book = json.loads((run / "mlflow.json").read_text())
    for server in book["servers"].values():
        server |= {"runs": {}, "logged": {}}
    (run / "mlflow.json").write_text(json.dumps(book))


def runs(uri: str) -> tuple[MlflowClient, list[Run]]:
    client = MlflowClient(uri)
    return client, list(client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id]))


@pytest.mark.slow
def test_federations_become_children_and_nothing_is_doubled(tmp_path: Path) -> None:
    folder = comparison(tmp_path / "study")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    run = finished_run(folder / "runs" / "fedavg-seed0", 2, tracking__uri=uri, tracking__experiment=EXPERIMENT)
    tell_run(run, uri)
    for _ in range(2):
        assert tell(folder, [run], "", EXPERIMENT) == f"MLflow: mlflow ui --backend-store-uri {uri}"
    forget(run)
    tell_run(run, uri)  # finds itself again below its parent
    client, found = runs(uri)
    named: dict[str, Any] = {one.info.run_name: one for one in found}
    assert len(named) == len(found) == 1 + 1 + 4  # comparison, federation, sites
    parent = named["study"]
    assert parent.info.status == "FINISHED"
    assert named["fedavg-seed0"].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert named["oslo"].data.tags["mlflow.parentRunId"] == named["fedavg-seed0"].info.run_id
    assert parent.data.metrics["fedavg_dice"] == 0.8
    assert "fedavg_deviation" not in parent.data.metrics
    assert parent.data.metrics["fedprox_difference_low"] == -0.01
    assert len(client.get_metric_history(parent.info.run_id, "fedavg_dice")) == 1
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"compare.html", "compare.csv", "compare.json"}


@pytest.mark.slow
def test_an_mlflow_out_of_reach_is_said_and_harms_nothing(tmp_path: Path) -> None:
    folder = comparison(tmp_path / "study")
    line = track_comparison(folder, [], TrackingSettings("http://127.0.0.1:1", EXPERIMENT), 120)
    why = "http://127.0.0.1:1 cannot be reached"
    assert line == f"MLflow does not have this comparison: {why}; to tell it again: the same command with --resume"


def test_tracking_can_be_off(tmp_path: Path) -> None:
    line = track_comparison(tmp_path, [], TrackingSettings("none", EXPERIMENT), 1)
    assert line == "MLflow: tracking is off (tracking.uri = none)"
    assert not list(tmp_path.iterdir())
