"""What is kept of a comparison belongs to the runs that it was made of."""

import json
from pathlib import Path

import pytest

from protocol.errors import RunError
from simulation.compare.contestants import jobs_of
from simulation.compare.folders import Shared
from simulation.compare.gathering import disagreement, ensemble_scores, gather
from simulation.compare.scores import Score
from simulation.compare.statistics import Key
from simulation.compare.words import LOCAL, Trial, Words, plan_of


def test_the_scores_of_an_ensemble_are_of_one_choice_of_local_models(tmp_path: Path) -> None:
    """A comparison that goes on with other trials may choose others, and must not find the scores of the first."""
    asked = plan_of(Words(strategies="fedavg", baselines="ensemble"))
    alone = {name: tmp_path / name for name in ("a", "b-seed0")}
    shared = Shared(0, tuple(alone.values()), False, alone, tmp_path)

    def kept(trial: Trial) -> set[Path]:
        return {ensemble_scores(tmp_path, job) for job in jobs_of(asked, LOCAL, shared, trial, tmp_path)}

    assert kept({}) == {tmp_path / "ensemble" / "seed0.csv"}
    first, second = kept({"train.lr": "1e-3"}), kept({"train.lr": "3e-3"})
    assert len(first) == len(second) == 1
    assert first != second


def test_without_the_reference_the_reason_is_told(tmp_path: Path) -> None:
    asked = plan_of(Words(strategies="fedavg,fedavgm"))
    shared = Shared(0, (tmp_path / "sites" / "a",), False, {}, tmp_path)
    jobs = {name: jobs_of(asked, name, shared, {}, tmp_path) for name in asked.trained}
    failed = {"fedavg-seed0": "out of luck", "fedavgm-seed0": "out of memory"}
    words = r"fedavg has not finished.*\(fedavg-seed0: out of luck\); mend it and go on with --resume"
    with pytest.raises(RunError, match=words):
        gather(tmp_path, asked, [shared], jobs, failed)


def test_scores_that_are_not_the_runs_own_are_told_but_where_its_masks_were_flipped(tmp_path: Path) -> None:
    scores = {Key(0, site, "1"): Score(site, "1", dice, 0.5) for site, dice in (("a", 0.6), ("b", 0.8))}

    def told(**more: object) -> list[str]:
        result = {"final": {"sites": {"a": {"dice": 0.6}, "b": {"dice": 0.5}}}, **more}
        (tmp_path / "result.json").write_text(json.dumps(result))
        return disagreement(tmp_path, scores)

    off = [f"{tmp_path.name}: the saved model's Dice at a site is 0.300 off what the run found at its end."]
    assert told() == off
    assert told(attack={"kind": "label_flip", "sites": ["b"]}) == []
    assert told(attack={"kind": "label_flip", "sites": ["a"]}) == off
    assert told(attack={"kind": "sign_flip", "sites": ["b"]}) == off
