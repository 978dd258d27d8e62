"""A whole comparison: what it leaves, that it goes on after a kill, and that nothing is run twice."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from protocol.errors import RunError
from protocol.settings import ROOT
from simulation.compare.command import compare
from simulation.compare.words import Words
from tests.client.phantoms import SMALL
from tests.simulation.test_report import Page

QUICK = SMALL | {"federation.rounds": 1, "train.augment": "false", "report.overlays": "none"}
SETS = [f"{key}={value}" for key, value in QUICK.items()]
QUIET = Console(quiet=True)


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    return found


@pytest.mark.slow
def test_fedprox_without_its_term_is_fedavg_and_training_alone_is_asked_for(tmp_path: Path) -> None:
    words = Words(sets=SETS, strategies="fedavg,fedprox", baselines="local,ensemble", own=["fedprox:strategy.mu=0"])
    folder = compare(words, tmp_path / "study", False, None, QUIET)
    found = read(folder)
    rows = {one["name"]: one for one in found["standings"]}
    assert rows.keys() == {"fedavg", "fedprox", "local", "ensemble"}
    same = next(one for one in found["differences"] if one["name"] == "fedprox")
    assert same["interval"] == {"estimate": 0, "low": 0, "high": 0}
    assert (same["p"], same["verdict"]) == (1.0, "the same as fedavg on every image")
    assert found["best"].startswith("No strategy can be called the best.")

    result = json.loads((folder / "runs" / "fedavg-seed0" / "result.json").read_text())
    assert rows["fedavg"]["dice"] == pytest.approx(result["final"]["global_dice"])
    assert rows["fedavg"]["worst_site"] == pytest.approx(result["final"]["worst_site_dice"])
    names = [site["name"] for site in result["sites"]]
    images = {site["name"]: site["test"] for site in result["sites"]}
    alone = {
        name: json.loads((folder / "runs" / f"local-{name}-seed0" / "result.json").read_text())["final"][
            "global_dice"
        ]
        for name in names
    }
    assert rows["local"]["dice"] == pytest.approx(sum(images[n] * alone[n] for n in names) / sum(images.values()))
    (table,) = found["matrices"]
    assert table["models"] == [*(f"{name} alone" for name in names), "ensemble", "fedavg"]
    for number, name in enumerate(names):
        assert table["dice"][number][number] == pytest.approx(alone[name])
    assert [one["site"] for one in found["gains"]["fedavg"]] == names
    for name in ("fedavg", "fedprox"):
        assert (folder / "runs" / f"{name}-seed0" / "sites").resolve() == (folder / "sites" / "seed0").resolve()
    assert found["failed"] == {}
    assert not any("off what the run found" in line for line in found["limits"])

    page = Page(folder / "compare.html")
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form"}
    for _, attributes in page.elements:
        for word in ("src", "srcset"):
            assert str(attributes.get(word, "data:")).startswith("data:")
    assert found["best"] in page.words
    with (folder / "compare.csv").open(newline="") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [one["name"] for one in found["standings"]]

    files = [*folder.glob("runs/*/result.json"), *(folder / f"compare.{kind}" for kind in ("json", "csv", "html"))]
    before = {path: path.stat().st_mtime_ns for path in files}
    with pytest.raises(RunError, match="already holds a comparison; go on with it by --resume"):
        compare(words, folder, False, None, QUIET)
    compare(Words(), folder, True, None, QUIET)
    assert {path: path.stat().st_mtime_ns for path in files} == before
    with pytest.raises(RunError, match=r"was begun with train\.lr = 0\.002, not 0\.1"):
        compare(Words(sets=["train.lr=0.1"]), folder, True, None, QUIET)


def test_a_failed_run_is_told_and_the_others_stand(tmp_path: Path) -> None:
    words = Words(sets=SETS, strategies="fedavg,fedavgm", own=["fedavgm:train.lr=1e30,train.optimizer=sgd"])
    with pytest.raises(RunError, match=r"1 runs failed \(fedavgm-seed0: .*to try again: fedurwkv compare --resume"):
        compare(words, tmp_path / "study", False, None, QUIET)
    found = read(tmp_path / "study")
    assert [one["name"] for one in found["standings"]] == ["fedavg"]
    assert list(found["failed"]) == ["fedavgm-seed0"]
    assert "fedavgm-seed0" in Page(tmp_path / "study" / "compare.html").words


def command(*words: str) -> list[str]:
    return [sys.executable, str(ROOT / "fedurwkv.py"), "compare", *words]


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("sign", "jobs"), [(signal.SIGKILL, "1"), (signal.SIGINT, "1"), (signal.SIGINT, "2")])
def test_a_killed_comparison_goes_on(tmp_path: Path, sign: signal.Signals, jobs: str) -> None:
    sets = [
        word for text in [*SETS, "data.sites=3", "federation.rounds=3", "train.epochs=4"] for word in ("--set", text)
    ]
    words = ["--strategies", "fedavg,median", "--tune", "train.lr=1e-3,3e-3", *sets]
    process = subprocess.Popen(
        command(*words, "--out", "study", "--jobs", jobs),
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    runs = tmp_path / "study" / "runs"
    until = time.monotonic() + 400
    while not list(runs.glob("*/checkpoint/latest")) and time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(sign)
    _, said = process.communicate(timeout=90)
    assert len(list(runs.glob("*/result.json"))) < 4
    if sign is signal.SIGINT:
        assert process.returncode == 1
        assert said.startswith("error: stopped")
        assert "fedurwkv compare --resume --out study" in said
        assert said.count("\n") == 1
    done = {path: path.stat().st_mtime_ns for path in runs.glob("*/result.json")}
    resumed = subprocess.run(
        command("--resume", "--out", "study"),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
        env=os.environ | {"COLUMNS": "200"},
    )
    assert resumed.returncode == 0, resumed.stderr
    assert {path: path.stat().st_mtime_ns for path in done} == done
    found = read(tmp_path / "study")
    assert len(found["tried"]) == 4
    for one in found["tried"]:
        best = max(other["dice"] for other in found["tried"] if other["contestant"] == one["contestant"])
        assert (one["dice"] == best) == (found["chosen"][one["contestant"]] == one["trial"])
    assert len(list(runs.iterdir())) == 4  # the chosen trials are the first seed's runs
