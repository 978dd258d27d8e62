"""The command itself, as a user starts it: a process of its own, its words, its exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from safetensors.numpy import load_file

from fedurwkv import main
from protocol.settings import ROOT
from tests.client.phantoms import SMALL, sets_of

SETS = sets_of(SMALL)


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "fedurwkv.py"), *words]


def fedurwkv(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"COLUMNS": "200"}
    return subprocess.run(
        command(*words), cwd=cwd, capture_output=True, text=True, timeout=240, env=environment, check=False
    )


def weights(run: Path) -> dict[str, bytes]:
    return {
        f"{file}/{name}": array.tobytes()
        for file in ("last", "model")
        for name, array in load_file(run / f"{file}.safetensors").items()
    }


def test_a_run_leaves_what_the_design_says(tmp_path: Path) -> None:
    done = fedurwkv("simulate", "--out", "run", *SETS, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    run = tmp_path / "run"
    for name in (
        "settings.yaml",
        "result.json",
        "model.safetensors",
        "last.safetensors",
        "report.html",
        "curves.png",
    ):
        assert (run / name).stat().st_size > 0
    result = json.loads((run / "result.json").read_text())
    assert {"schema", "strategy", "engine", "seed", "device", "sites", "rounds", "final", "seconds"} == result.keys()
    assert (result["schema"], result["engine"], result["strategy"]) == (1, "local", "fedavg")
    assert [record["round"] for record in result["rounds"]] == [1, 2]
    names = [site["name"] for site in result["sites"]]
    record = result["rounds"][-1]
    assert record["sites"].keys() == set(names) == result["final"]["sites"].keys()
    assert record["sites"][names[0]].keys() == {"dice", "iou", "loss", "seconds", "epsilon"}
    images = {site["name"]: site["test"] for site in result["sites"]}
    pooled = sum(images[n] * s["dice"] for n, s in result["final"]["sites"].items()) / sum(images.values())
    assert result["final"]["global_dice"] == pytest.approx(pooled)
    assert result["final"]["best_round"] in (1, 2)
    assert result["seconds"].keys() == {"train", "evaluate", "aggregate", "transfer", "other", "total"}
    assert yaml.safe_load((run / "settings.yaml").read_text())["train"]["batch"] == SMALL["train.batch"]
    assert "global" in done.stdout
    assert str(Path("run") / "report.html") in done.stdout

    again = fedurwkv("simulate", "--out", "run", *SETS, cwd=tmp_path)
    assert again.returncode == 1
    cure = "go on with it by --resume, or choose another --out"
    assert again.stderr == f"error: {run.name} already holds a run; {cure}\n"

    replay = fedurwkv("simulate", "run/settings.yaml", "--out", "replay", cwd=tmp_path)
    assert replay.returncode == 0, replay.stderr
    assert weights(run) == weights(tmp_path / "replay")


@pytest.mark.parametrize(
    ("sign", "strategy", "optimizer", "codec"),
    [
        (signal.SIGKILL, "scaffold", "sgd", "int8"),
        pytest.param(signal.SIGINT, "fedavg", "adamw", "fp32", marks=pytest.mark.slow),
    ],
)
def test_a_killed_run_goes_on_and_ends_like_one_that_was_not(
    tmp_path: Path, sign: signal.Signals, strategy: str, optimizer: str, codec: str
) -> None:
    longer = [*SETS, "--set", "federation.rounds=6", "--set", "train.epochs=4", "--set", f"transfer.codec={codec}"]
    longer += ["--set", f"federation.strategy={strategy}", "--set", f"train.optimizer={optimizer}"]
    assert fedurwkv("simulate", "--out", "whole", *longer, cwd=tmp_path).returncode == 0
    process = subprocess.Popen(
        command("simulate", "--out", "killed", *longer),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    latest = tmp_path / "killed" / "checkpoint" / "latest"
    until = time.monotonic() + 120
    while not latest.exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(sign)
    _, words = process.communicate(timeout=60)
    assert not (tmp_path / "killed" / "result.json").exists(), "the run was over before it could be killed"
    if sign is signal.SIGINT:
        assert process.returncode == 1
        assert words.startswith("error: stopped")
        assert "fedurwkv simulate --resume --out killed" in words
        assert words.count("\n") == 1
    resumed = fedurwkv("simulate", "--resume", "--out", "killed", cwd=tmp_path)
    assert resumed.returncode == 0, resumed.stderr
    assert weights(tmp_path / "whole") == weights(tmp_path / "killed")


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--set", "train.bacth=8"], 2, "unknown setting 'train.bacth'; did you mean 'train.batch'?"),
        (["--set", "train.batch=lots"], 2, "train.batch = 'lots' must be a whole number"),
        (["--set", "train.batch=0"], 2, "train.batch = 0 must be at least 1"),
        (["--set", "model.norm=bach"], 2, "model.norm = 'bach' is not one of: batch, group; did you mean 'batch'?"),
        (["--set", "federation.strategy=fedprix"], 2, "did you mean 'fedprox'?"),
        (["--set", "privacy.epsilon=1", "--set", "model.norm=batch"], 2, "use --set model.norm=group"),
        (["--set", "privacy.epsilon=-1"], 2, "privacy.epsilon = -1"),
        (["--set", "train.device=cuda:9"], 2, "train.device = 'cuda:9'"),
        (["--engine", "rai"], 2, "--engine = 'rai' is not one of: local, ray; did you mean 'ray'?"),
        (["--set", "data.root=nowhere"], 1, "nowhere"),
        (["--resume"], 2, "--resume needs the run's folder"),
        (["--resume", "--out", "nothing"], 1, "nothing holds no run to go on with"),
        (["missing.yaml"], 2, "no scenario file missing.yaml"),
    ],
)
def test_wrong_words_cost_one_line_and_no_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["fedurwkv", "simulate", *words])
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err
    assert end.value.code == code
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert not list(tmp_path.rglob("checkpoint/*"))
