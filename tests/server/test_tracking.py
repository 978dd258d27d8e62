import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from protocol.errors import RunError
from server.tracking import TrackingSettings, start, track
from tests.finished_run import SITES, finished_run, write_journal, write_result, write_settings
from tests.waiting import wait

EXPERIMENT = "exams"
SQLITE = TrackingSettings(uri="", experiment=EXPERIMENT)
UNREACHABLE = TrackingSettings(uri="http://127.0.0.1:1", experiment=EXPERIMENT)
ROUNDS = 4
NAMES = {name for name, *_ in SITES}


wait_for = partial(wait, seconds=60.0)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def logged(run: Path, server: str = "") -> dict[str, Any]:
    """What the tracking process remembers of the federation's own metrics: the last step of each."""
    if not (run / "mlflow.json").is_file():
        return {}
    memory = json.loads((run / "mlflow.json").read_text())["servers"][server]
    steps: dict[str, Any] = memory["logged"].get(memory["runs"].get(""), {})
    return steps


def mlflow_runs(uri: str) -> tuple[MlflowClient, dict[str, Run]]:
    """All runs of the experiment by name; each name once, or there were doubles."""
    client = MlflowClient(uri)
    runs = client.search_runs([client.get_experiment_by_name(EXPERIMENT).experiment_id])
    named = {run.info.run_name: run for run in runs}
    assert len(named) == len(runs)
    return client, named


def steps(client: MlflowClient, run: Run, metric: str) -> list[int]:
    return [point.step for point in client.get_metric_history(run.info.run_id, metric)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "runs" / "demo"
    write_settings(folder, tracking__experiment=EXPERIMENT, train__lr=3e-4)
    return folder


def check_complete(uri: str, run: Path) -> None:
    """MLflow has every number of the finished run once, its settings, its files and its sites."""
    client, runs = mlflow_runs(uri)
    parent = runs.pop(run.name)
    assert parent.info.status == "FINISHED"
    assert parent.data.params["train.lr"] == "0.0003"
    everything = list(range(1, ROUNDS + 1))
    for metric in (
        "global_dice",
        "worst_site_dice",
        "mean_site_dice",
        "train_loss",
        "seconds",
        "bytes_up",
        "bytes_down",
    ):
        assert steps(client, parent, metric) == everything, metric
    assert parent.data.metrics["final_hd95"] == 5.31
    files = {file.path for file in client.list_artifacts(parent.info.run_id)}
    assert files == {"settings.yaml", "result.json", "model.safetensors", "overlays"}
    assert [file.path for file in client.list_artifacts(parent.info.run_id, "overlays")] == ["overlays/a.png"]
    assert set(runs) == NAMES
    for name, child in runs.items():
        assert child.info.status == "FINISHED"
        assert child.data.tags["mlflow.parentRunId"] == parent.info.run_id
        trained = [step for step in everything if not (name == "shantou" and step == 3)]
        for metric, rounds in {"dice": everything, "iou": everything, "loss": trained, "seconds": trained}.items():
            assert steps(client, child, metric) == rounds, (name, metric)
        assert child.data.metrics["final_dice"] > 0.5
    assert steps(client, parent, "failed_sites") == everything
    assert [point.value for point in client.get_metric_history(parent.info.run_id, "failed_sites")] == [0, 0, 1, 0]


def finish_training(run: Path) -> None:
    write_journal(run, ROUNDS, ROUNDS, closed=True)
    write_result(run, ROUNDS)
    (run / "model.safetensors").write_bytes(b"stand-in")
    (run / "overlays").mkdir()
    (run / "overlays" / "a.png").write_bytes(b"stand-in")


@pytest.mark.slow
def test_a_tracker_killed_on_the_way_doubles_nothing(run: Path) -> None:
    uri = f"sqlite:///{run.parent / 'mlflow.db'}"
    with start(run, SQLITE) as tracker:
        write_journal(run, 1, ROUNDS)
        wait_for(lambda: logged(run).get("train_loss") == 1)
        assert tracker.pid is not None
        assert os.getpriority(os.PRIO_PROCESS, tracker.pid) >= 10
        assert os.getpgid(tracker.pid) != os.getpgid(0)  # Ctrl-C does not reach it
        assert "global_dice" not in logged(run)  # round 2's replies score round 1's model
        write_journal(run, 2, ROUNDS)
        wait_for(lambda: logged(run).get("global_dice") == 1)
        os.kill(tracker.pid, signal.SIGKILL)
        finish_training(run)
        assert tracker.finish(60) == f"MLflow: mlflow ui --backend-store-uri {uri}"
    check_complete(uri, run)

    book = json.loads((run / "mlflow.json").read_text())
    book["servers"][""] |= {"runs": {}, "logged": {}}  # told, and killed before it could remember
    (run / "mlflow.json").write_text(json.dumps(book))
    assert track(run) == f"MLflow: mlflow ui --backend-store-uri {uri}"
    check_complete(uri, run)


@pytest.mark.slow
def test_a_run_that_dies_is_killed_in_mlflow_too_and_goes_on_when_resumed(run: Path) -> None:
    write_journal(run, 1, ROUNDS)
    dying = (
        "import os, sys, time, pathlib; from server.tracking import TrackingSettings, start\n"
        f"print(start(pathlib.Path({str(run)!r}), TrackingSettings('', {EXPERIMENT!r})).pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", dying], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    wait_for(lambda: logged(run).get("train_loss") == 1)
    parent.kill()
    parent.communicate()
    wait_for(lambda: not alive(pid))
    uri = f"sqlite:///{run.parent / 'mlflow.db'}"
    _, before = mlflow_runs(uri)
    assert {entry.info.status for entry in before.values()} == {"KILLED"}

    with start(run, SQLITE) as tracker:
        wait_for(lambda: mlflow_runs(uri)[1]["demo"].info.status == "RUNNING")
        finish_training(run)
        tracker.finish(60)
    check_complete(uri, run)
    assert mlflow_runs(uri)[1]["demo"].info.run_id == before["demo"].info.run_id


@pytest.mark.slow
def test_an_unreachable_server_blocks_nothing_and_is_made_up_for(run: Path) -> None:
    began = time.monotonic()
    with start(run, UNREACHABLE) as tracker:
        assert time.monotonic() - began < 1
        write_journal(run, 1, ROUNDS)
        wait_for(lambda: "cannot be reached; next attempt" in (run / "tracking.log").read_text())
        finish_training(run)
        line = tracker.finish(60)
    why = "http://127.0.0.1:1 cannot be reached"
    assert line == f"MLflow does not have all of this run: {why}; to catch up: fedurwkv track {run}"
    assert track(run, uri="").startswith("MLflow: mlflow ui")
    check_complete(f"sqlite:///{run.parent / 'mlflow.db'}", run)


def test_a_server_that_never_answers_is_given_up_at_the_timeout(run: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        settings = TrackingSettings(f"http://127.0.0.1:{deaf.getsockname()[1]}", EXPERIMENT)
        with start(run, settings) as tracker:
            deaf.settimeout(120)
            connection, _ = deaf.accept()  # it is asked now, and says nothing
            began = time.monotonic()
            line = tracker.finish(2)
            assert time.monotonic() - began < 4
            assert "MLflow did not answer within 2 s; to catch up: fedurwkv track" in line
            assert tracker.pid is not None
            assert not alive(tracker.pid)
            connection.close()


def test_leaving_the_block_ends_the_process(run: Path) -> None:
    with start(run, UNREACHABLE) as tracker:
        pass
    assert tracker.pid is not None
    assert not alive(tracker.pid)


def test_two_processes_never_track_one_run(run: Path) -> None:
    finished_run(run, ROUNDS)
    with start(run, UNREACHABLE):
        wait_for(lambda: "next attempt" in (run / "tracking.log").read_text())
        with pytest.raises(RunError, match="another process is tracking this run"):
            track(run, uri="")


def test_tracking_can_be_off(run: Path) -> None:
    with start(run, TrackingSettings("none", EXPERIMENT)) as tracker:
        assert tracker.pid is None
        assert tracker.finish(1) == "MLflow: tracking is off (tracking.uri = none)"
    assert not (run / "tracking.log").exists()


def test_only_the_folder_of_a_run_is_tracked(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="it holds no settings"):
        track(tmp_path)


def test_an_experiment_needs_a_name() -> None:
    with pytest.raises(ValueError, match="experiment = ' ' must be a name"):
        TrackingSettings("", " ")


@contextmanager
def mlflow_server(folder: Path) -> Iterator[str]:
    """A real tracking server on loopback, stopped at the end."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder / 'server.db'}",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    quiet = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "server.log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, env=quiet, start_new_session=True)
    try:
        wait_for(lambda: answers(port), seconds=120)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@pytest.mark.slow
def test_a_tracking_server_gets_the_same(run: Path, tmp_path: Path) -> None:
    write_journal(run, 2, ROUNDS)
    with mlflow_server(tmp_path) as uri, start(run, TrackingSettings(uri, EXPERIMENT)) as tracker:
        wait_for(lambda: (run / "mlflow.json").is_file() and logged(run, uri).get("global_dice") == 1)
        finish_training(run)
        line = tracker.finish(60)
        _, runs = mlflow_runs(uri)
        experiment = runs["demo"].info.experiment_id
        assert line == f"MLflow: {uri}/#/experiments/{experiment}/runs/{runs['demo'].info.run_id}"
        check_complete(uri, run)
