"""What may be asked of a comparison; wrong words cost one line and no run."""

import sys
from pathlib import Path

import pytest

from fedurwkv import main
from protocol.errors import RunError, SettingsError
from simulation.compare.words import Words, plan_of, read_plan, write_plan


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    words = Words(
        sets=["data.size=32", "seed=7"],
        strategies="fedavg, scaffold,fedavg",
        seeds=3,
        baselines="local,central",
        own=["scaffold:train.optimizer=sgd,train.lr=0.05", "local:train.lr=0.1"],
        tune=["train.weight_decay=0,1e-4"],
    )
    plan = plan_of(words)
    assert plan.strategies == ("fedavg", "scaffold")
    assert plan.all_seeds == [7, 8, 9]
    assert plan.own["scaffold"] == {"train.optimizer": "sgd", "train.lr": "0.05"}
    assert plan.trials == [{"train.weight_decay": "0"}, {"train.weight_decay": "1e-4"}]
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    assert plan_of(Words(), read_plan(tmp_path)) == plan
    more = plan_of(Words(seeds=5, baselines=""), plan)
    assert (more.seeds, more.baselines, more.strategies) == (5, (), plan.strategies)


def test_everyone_tries_every_combination() -> None:
    plan = plan_of(Words(strategies="fedavg", tune=["train.lr=1e-3,3e-3", "train.weight_decay=0,1e-4"]))
    assert len(plan.trials) == 4


def test_the_reference_is_fedavg_where_it_takes_part() -> None:
    assert plan_of(Words(strategies="fedprox,fedavg")).reference == "fedavg"
    assert plan_of(Words(strategies="fedprox,fedadam")).reference == "fedprox"


def test_an_ensemble_trains_the_local_models() -> None:
    assert plan_of(Words(strategies="fedavg", baselines="ensemble")).trained == ("fedavg", "local")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (Words(), "--strategies is missing"),
        (Words(strategies="fedavg,fedprix"), "'fedprix' is not one of: .*; did you mean 'fedprox'?"),
        (Words(strategies="fedavg", baselines="centrl"), "did you mean 'central'?"),
        (Words(strategies="fedavg", seeds=0), "--seeds = 0 must be at least 1"),
        (Words(strategies="fedavg", own=["fedprox:train.lr=1"]), "--for = 'fedprox' is not one of: fedavg"),
        (Words(strategies="fedavg", own=["fedavg"]), "write NAME:KEY=VALUE"),
        (Words(strategies="fedavg", own=["fedavg:train.epochs=3"]), "--set train.epochs sets it for all"),
        (Words(strategies="fedprox", sets=["strategy.mu=1"]), "--for NAME:strategy.mu=VALUE"),
        (Words(strategies="fedavg", tune=["train.lr=1"]), "give two values or more"),
        (Words(strategies="fedavg", tune=["strategy.mu=1,2"]), "not all contestants have it"),
        (
            Words(strategies="fedavg", tune=["train.lr=1,2"], own=["fedavg:train.lr=3"]),
            "train.lr is tuned for all, so --for fedavg:train.lr cannot fix it",
        ),
        (Words(strategies="fedavg", engine="rai"), "did you mean 'ray'?"),
        (Words(strategies="fedavg", sets=["train.bacth=3"]), "did you mean 'train.batch'?"),
    ],
)
def test_wrong_words(words: Words, says: str) -> None:
    with pytest.raises(SettingsError) as error:
        plan_of(words)
    assert any(part in str(error.value) for part in says.split(".*"))
    assert says.split(".*")[-1] in str(error.value)


def test_a_folder_without_a_plan_cannot_go_on(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no comparison to go on with"):
        read_plan(tmp_path)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--strategies", "fedavg,fedprix"], 2, "did you mean 'fedprox'?"),
        (["--strategies", "fedavg,scaffold"], 2, "scaffold: train.optimizer = 'adamw' does not go with scaffold"),
        (["--strategies", "fedavg,krum", "--set", "data.sites=3"], 2, "krum: federation.strategy = 'krum' needs"),
        (["--strategies", "fedavg", "--for", "fedavg:strategy.nu=1"], 2, "unknown setting 'strategy.nu' of fedavg"),
        (["--strategies", "fedavg", "--tune", "train.lr=0.1,-1"], 2, "train.lr = -1.0 must be above 0"),
        (["--strategies", "fedavg", "--jobs", "0"], 2, "--jobs = 0 must be at least 1"),
        (["--strategies", "fedavg", "--resume"], 2, "--resume needs the comparison's folder"),
        (["--strategies", "fedavg", "--set", "data.root=nowhere"], 1, "nowhere is no folder"),
        (
            [
                *("--strategies", "fedavg", "--baselines", "local"),
                *("--set", "attack.kind=nan", "--set", "attack.share=0.5"),
            ],
            2,
            "leave out --baselines",
        ),
    ],
)
def test_impossible_plans_cost_one_line_and_no_run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    code: int,
    says: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["--set", "data.images=8", "--set", "data.size=16"]
    monkeypatch.setattr(sys, "argv", ["fedurwkv", "compare", *words, *small])
    with pytest.raises(SystemExit) as end:
        main()
    error = capsys.readouterr().err
    assert end.value.code == code
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert not list(tmp_path.rglob("settings.yaml"))
