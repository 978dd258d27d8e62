"""Choosing by validation Dice, pooled over a contestant's runs."""

import json
from pathlib import Path

import pytest

from simulation.compare.tuning import Tried, choose_trials, validation_dice


def write(run: Path, val: int, dice: list[float], best: int) -> Path:
    run.mkdir()
    rounds = [{"global_dice": value} for value in dice]
    result = {"sites": [{"val": val}], "rounds": rounds, "final": {"best_round": best, "global_dice": 0.99}}
    (run / "result.json").write_text(json.dumps(result))
    return run


def test_local_models_are_judged_over_all_their_images(tmp_path: Path) -> None:
    runs = [write(tmp_path / "a", 30, [0.4, 0.6], best=2), write(tmp_path / "b", 10, [0.2, 0.1], best=1)]
    assert validation_dice(runs) == pytest.approx((30 * 0.6 + 10 * 0.2) / 40)
    assert validation_dice([*runs, tmp_path / "absent"]) is None


def test_the_best_trial_and_of_equals_the_first() -> None:
    low, high, same = {"train.lr": "1"}, {"train.lr": "2"}, {"train.lr": "3"}
    found = [
        *(Tried("fedavg", low, 0.5), Tried("fedavg", high, 0.7), Tried("fedavg", same, 0.7)),
        *(Tried("local", low, None), Tried("local", high, 0.1)),
        Tried("lost", low, None),
    ]
    assert choose_trials(found) == {"fedavg": high, "local": high}
