import threading
import time
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message

from protocol.errors import RoundError
from server.journal import Journal, State
from tests.server.clients import X0, client_app, federate, honest, name_of, settings


def test_the_replies_of_a_round_score_the_model_before(tmp_path: Path) -> None:
    state = federate(tmp_path, settings(federation_rounds=3), 3)
    assert [record["round"] for record in state.history] == [1, 2, 3]
    for record in state.history:
        assert record["sites"].keys() == {name_of(i) for i in range(3)}
        dices = [site["dice"] for site in record["sites"].values()]
        assert record["global_dice"] == pytest.approx(sum(dices) / 3)  # every site has four val images
        assert record["worst_site_dice"] == min(dices)
    scores = [record["global_dice"] for record in state.history]
    assert scores == sorted(scores)  # the model shrinks each round, so its quality 1 / (1 + mean |w|) rises
    assert state.best_round == 3


def test_the_best_model_is_kept_apart_from_the_last(tmp_path: Path) -> None:
    peak = 2

    def app(message: Message, context: Context) -> Message:
        reply = client_app({})(message, context)
        scalars = reply.content.metric_records.get("scalars")
        words = reply.content["reply"]
        closing = message.metadata.message_type == "evaluate"
        scored = int(words["round"]) if closing else int(words["round"]) - 1
        if scalars is not None and "val.dice" in scalars:
            scalars["val.dice"] = 1.0 - 0.1 * abs(scored - peak)
        return reply

    state = federate(tmp_path, settings(federation_rounds=4), 2, app=app)
    assert state.best_round == peak
    assert [round(record["global_dice"], 3) for record in state.history] == [0.9, 1.0, 0.9, 0.8]
    alone = federate(tmp_path / "alone", settings(federation_rounds=peak), 2)
    assert state.best["w"].tobytes() == alone.model["w"].tobytes()
    assert state.best["w"].tobytes() != state.model["w"].tobytes()

    patient = federate(tmp_path / "patient", settings(federation_rounds=9, federation_patience=2), 2, app=app)
    assert patient.stopped_early
    assert (patient.best_round, patient.round) == (peak, 5)  # 3 and 4 are no better; 5 was trained while 4 was scored


@pytest.mark.parametrize("killed_after", [1, 2, 3, 4])
@pytest.mark.parametrize("strategy", ["fedavg", "fedavgm"])
def test_a_run_killed_after_any_round_and_resumed_equals_one_that_was_not(
    tmp_path: Path, killed_after: int, strategy: str
) -> None:
    table = settings(federation_rounds=4, federation_strategy=strategy)
    whole = federate(tmp_path / "whole", table, 3)

    class Killed(Exception):
        pass

    def app(message: Message, context: Context) -> Message:
        return client_app({})(message, context)

    run = tmp_path / "killed"
    write = Journal.write

    def dying_write(journal: Journal, state: State) -> None:
        write(journal, state)
        if state.round == killed_after:
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", dying_write)
        with pytest.raises(Killed):
            federate(run, table, 3, app=app)
    resumed = federate(run, table, 3, state=Journal(run).read())
    for name in X0:
        assert resumed.model[name].tobytes() == whole.model[name].tobytes()
        assert resumed.best[name].tobytes() == whole.best[name].tobytes()
    assert [scores_of(r) for r in resumed.history] == [scores_of(r) for r in whole.history]


def scores_of(record: dict[str, object]) -> tuple[object, ...]:
    return record["round"], record["global_dice"], record["worst_site_dice"], record["train_loss"]


def test_the_deadline_closes_a_round_and_a_late_reply_counts_nowhere(tmp_path: Path) -> None:
    release = threading.Event()

    def app(message: Message, context: Context) -> Message:
        slow = context.node_config["partition-id"] == 1 and message.metadata.message_type == "train"
        if slow:
            release.wait(10)
        return client_app({})(message, context)

    table = settings(federation_rounds=1, federation_deadline=1.0, federation_quorum=1)
    began = time.monotonic()
    threading.Timer(1.5, release.set).start()
    state = federate(tmp_path, table, 2, app=app)
    assert time.monotonic() - began < 8
    assert state.history[0]["failed"] == {"site-1": "no reply within the deadline of 1 s"}
    assert state.history[0]["sites"]["site-0"]["loss"] is not None


def test_sampling_asks_a_share_of_the_sites_and_all_in_the_closing_evaluation(tmp_path: Path) -> None:
    table = settings(federation_rounds=6, federation_fraction=0.5)
    state = federate(tmp_path, table, 4)
    trained = [{n for n, site in r["sites"].items() if site["loss"] is not None} for r in state.history]
    assert all(len(names) == 2 for names in trained)
    assert len(set().union(*trained)) == 4
    assert len(state.history[-1]["sites"]) == 4  # all four scored the last model


def test_the_wall_time_is_booked_without_a_gap(tmp_path: Path) -> None:
    began = time.perf_counter()
    state = federate(tmp_path, settings(federation_rounds=3), 3)
    wall = time.perf_counter() - began
    parts = {name: value for name, value in state.seconds.items() if name != "total"}
    assert parts.keys() == {"train", "evaluate", "aggregate", "transfer", "other"}
    assert sum(parts.values()) == pytest.approx(state.seconds["total"], rel=0.02)
    assert state.seconds["total"] <= wall


def test_two_sites_of_one_name_are_refused(tmp_path: Path) -> None:
    def app(message: Message, context: Context) -> Message:
        context.node_config["partition-id"] = 0
        return client_app({})(message, context)

    with pytest.raises(RoundError, match="two sites call themselves 'site-0'"):
        federate(tmp_path, settings(), 2, app=app)


def test_the_described_counts_are_the_results(tmp_path: Path) -> None:
    from protocol.messages import Task

    state = federate(tmp_path, settings(federation_rounds=1), 2)
    counts = honest(1, Task("query.describe")).scalars
    expected = {"name": "site-1", **{split: int(counts[f"{split}.images"]) for split in ("train", "val", "test")}}
    assert state.sites[1] == expected


def test_failures_in_the_closing_evaluation_are_recorded_and_need_a_quorum_too(tmp_path: Path) -> None:
    def app(message: Message, context: Context) -> Message:
        if context.node_config["partition-id"] == 1 and message.metadata.message_type == "evaluate":
            return Message(Error(1000, "out of memory"), reply_to=message)
        return client_app({})(message, context)

    state = federate(tmp_path / "kept", settings(federation_rounds=1), 2, app=app)
    assert state.history[-1]["failed"] == {"site-1": "closing evaluation: out of memory"}
    with pytest.raises(
        RoundError, match="the closing evaluation on val images has 1 valid replies, fewer than the 2"
    ):
        federate(tmp_path / "lost", settings(federation_rounds=1, federation_quorum=2), 2, app=app)


def test_a_late_reply_to_one_round_does_not_count_in_the_next(tmp_path: Path) -> None:
    slept = threading.Event()

    def app(message: Message, context: Context) -> Message:
        if (
            context.node_config["partition-id"] == 1
            and message.metadata.message_type == "train"
            and not slept.is_set()
        ):
            slept.set()
            time.sleep(1.5)
        return client_app({})(message, context)

    table = settings(federation_rounds=3, federation_deadline=1.0, federation_quorum=1)
    state = federate(tmp_path, table, 2, app=app, lanes=2)
    assert "site-1" in state.history[0]["failed"]
    assert state.history[2]["failed"] == {}
