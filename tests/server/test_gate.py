from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Error

from protocol.errors import RoundError
from protocol.packing import Schema
from server.journal import Journal
from strategies import STRATEGIES, Update
from tests.server.clients import (
    SCHEMA,
    X0,
    Misdeed,
    examples_of,
    federate,
    honest,
    name_of,
    settings,
    with_model,
    with_scalars,
    without,
)

OTHER = Schema.of([("w", (3,), "float32")])

MISDEEDS: dict[str, tuple[Misdeed, str]] = {
    "another schema": (lambda r: replace(r, schema=OTHER.hash), "another schema"),
    "a truncated model": (lambda r: replace(r, model=r.model[:-1]), "a packed model of"),
    "no model": (lambda r: replace(r, model=b""), "a packed model of 0 bytes"),
    "NaN": (with_model(w=np.full((5, 8), np.nan, np.float32)), "w has values that are not finite"),
    "infinity": (with_model(w=np.full((5, 8), np.inf, np.float32)), "w has values that are not finite"),
    "negative variance": (
        with_model(**{"n.running_var": -np.ones(4, np.float32)}),
        "n.running_var has",
    ),
    "an absurd variance": (with_model(**{"n.running_var": np.full(4, 3e38, np.float32)}), "n.running_var has values"),
    "an absurd mean": (with_model(**{"n.running_mean": np.full(4, 1e30, np.float32)}), "n.running_mean has values"),
    "an absurd counter": (with_model(**{"n.num_batches_tracked": np.array(2**63 - 1)}), "tracked has values"),
    "a counter that falls": (with_model(**{"n.num_batches_tracked": np.array(-1)}), "tracked has values"),
    "no number of training images": (without("train.images"), "train.images, which the strategy needs, is missing"),
    "negative seconds": (with_scalars(seconds_train=-1e9), "seconds.train is -1000000000.0, which it cannot be"),
    "a number beyond floats": (with_scalars(train_loss=10**400), "not of this protocol"),
    "a reason of many lines": (lambda r: Error(1000, "x" * 5000), "xxx..."),
    "a huge norm": (with_model(w=np.full((5, 8), 1e6, np.float32)), "the update's norm is"),
    "no examples": (with_scalars(train_images=0), "0 training images"),
    "too many examples": (with_scalars(train_images=1e9), "train.images is 1000000000"),
    "a Dice above one": (with_scalars(val_dice=1.5), "val.dice is 1.5, which it cannot be"),
    "a loss that is NaN": (with_scalars(train_loss=float("nan")), "train.loss is nan"),
    "a loss beyond powers": (with_scalars(train_loss_before=1e200), "train.loss_before is 1e+200, beyond 1e+09"),
    "an older round": (lambda r: replace(r, round=r.round - 1), "a reply to round"),
    "another's name": (lambda r: replace(r, site="site-0"), "the reply says it comes from 'site-0'"),
    "an error": (lambda r: Error(1000, "Traceback\n  File x\nthe GPU fell off"), "the GPU fell off"),
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_a_malformed_update_is_named_and_the_result_is_that_of_the_honest_ones(tmp_path: Path, misdeed: str) -> None:
    spoil, reason = MISDEEDS[misdeed]
    table = settings(federation_rounds=1)
    state = federate(tmp_path, table, 4, {1: spoil})
    failed = state.history[0]["failed"]
    assert list(failed) == ["site-1"]
    assert reason in failed["site-1"]
    assert "Traceback" not in failed["site-1"]
    expected = STRATEGIES["fedavg"]().aggregate(X0, [honest_update(i) for i in (0, 2, 3)])
    for name, array in expected.items():
        assert array.tobytes() == state.model[name].tobytes()


def honest_update(index: int) -> Update:
    from protocol.messages import TRAIN, Task

    reply = honest(index, Task(TRAIN, 1, SCHEMA.hash, SCHEMA.pack(X0)))
    return Update(name_of(index), SCHEMA.unpack(reply.model), examples_of(index))


@pytest.mark.parametrize(
    ("name", "entry"), [("train.loss", "loss"), ("val.dice", "dice"), ("val.images", "dice"), ("val.iou", "iou")]
)
def test_what_a_site_withholds_is_null_and_its_update_counts(tmp_path: Path, name: str, entry: str) -> None:
    """A hospital's policy may keep any score to itself: the others' are pooled."""
    table = settings(federation_rounds=2)
    state, open_state = (federate(tmp_path / n, table, 3, {1: without(n)} if n else {}) for n in (name, ""))
    first, whole = state.history[0], open_state.history[0]
    assert first["failed"] == {}
    assert {site: values[entry] is None for site, values in first["sites"].items()} == {
        f"site-{index}": index == 1 for index in range(3)
    }
    assert all(array.tobytes() == state.model[key].tobytes() for key, array in open_state.model.items())
    if entry == "dice":
        others = [whole["sites"][f"site-{index}"]["dice"] for index in (0, 2)]
        assert first["global_dice"] == pytest.approx(sum(others) / 2)  # both have four validation images
        assert first["worst_site_dice"] == min(others)


def test_a_study_whose_sites_all_withhold_the_dice_says_so_at_its_second_round(tmp_path: Path) -> None:
    spoil = dict.fromkeys(range(2), without("val.dice"))
    with pytest.raises(RoundError, match=r"no site tells val\.dice.*allow\.scalars.*--resume"):
        federate(tmp_path, settings(federation_rounds=5), 2, spoil)
    assert Journal(tmp_path).read().round == 1


def test_without_misdeeds_nobody_is_left_out(tmp_path: Path) -> None:
    state = federate(tmp_path, settings(federation_rounds=2), 3)
    assert [record["failed"] for record in state.history] == [{}, {}]


def test_too_few_honest_updates_end_the_run_with_every_reason(tmp_path: Path) -> None:
    spoil, _ = MISDEEDS["NaN"]
    with pytest.raises(RoundError, match=r"round 1 has 1 valid replies, fewer than the 2 .*site-0: w has .*--resume"):
        federate(tmp_path, settings(federation_rounds=1, federation_quorum=2), 3, {0: spoil, 2: spoil})
