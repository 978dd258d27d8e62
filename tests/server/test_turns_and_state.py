"""What the server tells sites beside the model: whose state belongs to it, what travels with it, whose turn it is."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import Context, Error, Message

from protocol.errors import RoundError
from protocol.messages import EVALUATE, TRAIN, Reply, Task, read_task, reply_content
from protocol.packing import Schema
from server.journal import Journal
from strategies import STRATEGIES
from tests.server.clients import SCHEMA, X0, client_app, federate, honest, name_of, settings, with_scalars, without

SGD = {"train_optimizer": "sgd"}
Tasks = list[tuple[str, Task]]
Answer = Callable[[int, Task], Reply | Error]


def noting(tasks: Tasks, answer: Answer = honest) -> Callable[[Message, Context], Message]:
    """A client app that writes down every task but the first question."""

    def app(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        task = read_task(message.metadata.message_type, message.content, {})
        if task.model:
            tasks.append((name_of(index), task))
        reply = answer(index, task)
        return Message(reply if isinstance(reply, Error) else reply_content(reply), reply_to=message)

    return app


def failing(*when: tuple[int, int]) -> Answer:
    """Honest sites but for the (round, site) in which training fails."""

    def answer(index: int, task: Task) -> Reply | Error:
        if task.kind == TRAIN and (task.round, index) in when:
            return Error(1000, "out of luck")
        return honest(index, task)

    return answer


def told(tasks: Tasks, site: str, kind: str = TRAIN) -> list[tuple[int, int]]:
    return [(task.round, task.accepted) for name, task in tasks if name == site and task.kind == kind]


def test_a_site_is_told_the_last_round_that_counted_for_it(tmp_path: Path) -> None:
    tasks: Tasks = []
    table = settings(federation_rounds=5, federation_quorum=1)
    federate(tmp_path, table, 2, app=noting(tasks, failing((2, 1), (3, 1))))
    assert told(tasks, "site-0") == [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)]
    assert told(tasks, "site-1") == [(1, 0), (2, 1), (3, 1), (4, 1), (5, 4)]
    assert told(tasks, "site-1", EVALUATE)[0] == (5, 5)
    assert len({task.study for _, task in tasks}) == 1
    assert tasks[0][1].study == Journal(tmp_path).study != ""


@pytest.mark.parametrize(
    "misdeed", [lambda r: replace(r, round=7), without("train.images"), with_scalars(val_dice=2.0)]
)
def test_a_reply_in_quarantine_does_not_count(tmp_path: Path, misdeed: Callable[[Reply], Reply]) -> None:
    tasks: Tasks = []

    def answer(index: int, task: Task) -> Reply:
        reply = honest(index, task)
        return misdeed(reply) if (index, task.kind, task.round) == (1, TRAIN, 2) else reply

    federate(tmp_path, settings(federation_rounds=3, federation_quorum=1), 2, app=noting(tasks, answer))
    assert told(tasks, "site-1") == [(1, 0), (2, 1), (3, 1)]


def peaking(peak: int, index: int, task: Task, otherwise: Answer = honest) -> Reply | Error:
    """A reply as if the model of round `peak` were the best."""
    reply = otherwise(index, task)
    if isinstance(reply, Error) or "val.dice" not in reply.scalars:
        return reply
    scored = task.round if task.kind == EVALUATE else task.round - 1
    return replace(reply, scalars={**reply.scalars, "val.dice": 1.0 - 0.1 * abs(scored - peak)})


def test_the_best_model_is_tested_with_the_state_of_its_own_round(tmp_path: Path) -> None:
    tasks: Tasks = []
    table = settings(federation_rounds=6, federation_quorum=1)
    app = noting(tasks, lambda i, task: peaking(3, i, task, failing((3, 1))))
    state = federate(tmp_path, table, 2, app=app)
    assert state.best_round == 3
    assert told(tasks, "site-0", EVALUATE) == [(6, 6), (3, 3)]
    assert told(tasks, "site-1", EVALUATE) == [(6, 6), (3, 2)]  # its reply to round 3 was none
    kept = {(task.round, name): task.keep for name, task in tasks if task.kind == TRAIN}
    assert all(3 in kept[number, "site-0"] and 2 in kept[number, "site-1"] for number in (5, 6))


def test_every_state_that_a_journal_on_disk_may_ask_for_is_kept(tmp_path: Path) -> None:
    """Whatever round's checkpoint a killed run goes on from, no later task has let its states go."""
    tasks: Tasks = []
    table = settings(federation_rounds=6, federation_quorum=1)
    needed: dict[int, tuple[dict[str, int], dict[str, int]]] = {0: ({}, {})}
    write = Journal.write

    def noting_write(journal: Journal, state: object) -> None:
        needed[state.round] = (dict(state.accepted), dict(state.best_accepted))  # type: ignore[attr-defined]
        write(journal, state)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "write", noting_write)
        app = noting(tasks, lambda i, task: peaking(2, i, task, failing((2, 1), (4, 0))))
        federate(tmp_path, table, 2, app=app)
    for name, task in tasks:
        if task.kind == TRAIN:
            for behind in (1, 2):  # while round r is trained, the newest journal is that of r - 1 or of r - 2
                for rounds in needed[max(0, task.round - behind)]:
                    assert rounds.get(name, 0) in task.keep


def test_a_resumed_run_tells_sites_the_same(tmp_path: Path) -> None:
    table = settings(federation_rounds=5, federation_quorum=1)
    answer = failing((2, 1), (3, 0))
    whole: Tasks = []
    federate(tmp_path / "whole", table, 2, app=noting(whole, answer))
    parts: Tasks = []
    short = {**table, "federation.rounds": 3}
    federate(tmp_path / "parts", short, 2, app=noting([], answer))
    state = Journal(tmp_path / "parts").read()
    state.closed, state.settings = False, {**table, "federation.sites": 2}
    federate(tmp_path / "parts", table, 2, state=state, app=noting(parts, answer))
    for site in ("site-0", "site-1"):
        assert told(parts, site) == told(whole, site)[3:]
    assert {task.study for _, task in parts} == {Journal(tmp_path / "parts").study}


def test_what_travels_beside_the_model_arrives_and_is_counted(tmp_path: Path) -> None:
    tasks: Tasks = []

    def answer(index: int, task: Task) -> Reply:
        reply = honest(index, task)
        return replace(reply, scalars={**reply.scalars, "train.travel": 0.5}) if task.kind == TRAIN else reply

    table = settings(federation_rounds=2, federation_strategy="scaffold", **SGD)
    state = federate(tmp_path, table, 2, app=noting(tasks, answer))
    beside = Schema.like({"w": X0["w"]})
    training = [task for _, task in tasks if task.kind == TRAIN]
    assert {task.received_schema for task in training} == {beside.hash}
    first, second = (beside.unpack(task.received)["w"] for task in (training[0], training[-1]))
    assert not first.any()
    assert second.any()
    down = sum(len(task.model) + len(task.received) for _, task in tasks)
    assert state.history[0]["bytes_down"] == 2 * (SCHEMA.nbytes + beside.nbytes)
    assert sum(record["bytes_down"] for record in state.history) == down
    assert state.history[0]["bytes_up"] == 2 * SCHEMA.nbytes


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("train.travel", None, "train.travel, which the strategy needs, is missing"),
        ("train.travel", 0.0, "train.travel is 0, which no training takes"),
        ("train.travel", 1e-300, "train.travel is 1e-300, which no training takes"),
    ],
)
def test_an_update_without_what_the_strategy_needs_is_left_out(
    tmp_path: Path, name: str, value: float | None, reason: str
) -> None:
    def answer(index: int, task: Task) -> Reply:
        reply = honest(index, task)
        scalars = {**reply.scalars, "train.travel": 0.5}
        if index == 1:
            scalars = {**reply.scalars} if value is None else {**scalars, name: value}
        return replace(reply, scalars=scalars) if task.kind == TRAIN else reply

    table = settings(federation_rounds=1, federation_strategy="scaffold", **SGD)
    state = federate(tmp_path, table, 3, app=noting([], answer))
    assert state.history[0]["failed"] == {"site-1": reason}


def test_cyclic_hands_the_model_from_site_to_site(tmp_path: Path) -> None:
    tasks: Tasks = []
    state = federate(tmp_path, settings(federation_rounds=2, federation_strategy="cyclic"), 3, app=noting(tasks))
    x = SCHEMA.pack(X0)
    ends = []
    for number in (1, 2):
        for index in range(3):
            asked = next(t for n, t in tasks if (n, t.kind, t.round) == (name_of(index), TRAIN, number))
            assert asked.model == x
            assert asked.split == ""
            x = honest(index, asked).model
        ends.append(x)
    assert SCHEMA.pack(state.model) == ends[-1]
    # each round's own model is scored, by all sites: that of round 1 apart, that of round 2 in the closing evaluation
    scored = [(task.round, task.model) for _, task in tasks if task.kind == EVALUATE and task.split == "val"]
    assert scored == [(1, ends[0])] * 3 + [(2, ends[1])] * 3
    assert [len(record["sites"]) for record in state.history] == [3, 3]
    assert all(record["global_dice"] is not None for record in state.history)
    assert all(site["loss"] is not None and site["dice"] is not None for site in state.history[0]["sites"].values())
    sent = sum(len(task.model) for _, task in tasks)
    assert sum(record["bytes_down"] for record in state.history) == sent


def test_a_site_that_misses_its_turn_is_passed_over(tmp_path: Path) -> None:
    table = settings(federation_rounds=1, federation_strategy="cyclic", federation_quorum=1)
    state = federate(tmp_path, table, 3, app=noting([], failing((1, 1))))
    alone = federate(tmp_path / "two", table, 3, app=noting([], failing((1, 1), (1, 2))))
    assert state.history[0]["failed"] == {"site-1": "out of luck"}
    assert state.accepted == {"site-0": 1, "site-2": 1}
    first = honest(0, Task(TRAIN, 1, SCHEMA.hash, SCHEMA.pack(X0), ""))
    third = honest(2, Task(TRAIN, 1, SCHEMA.hash, first.model, ""))
    assert SCHEMA.pack(state.model) == third.model
    assert SCHEMA.pack(alone.model) == first.model


def test_a_cyclic_round_without_a_quorum_ends_the_run_with_every_reason(tmp_path: Path) -> None:
    table = settings(federation_rounds=1, federation_strategy="cyclic", federation_quorum=2)
    with pytest.raises(RoundError, match=r"round 1 has 1 valid replies, fewer than the 2 .*site-0: out.*site-2: out"):
        federate(tmp_path, table, 3, app=noting([], failing((1, 0), (1, 2))))


def test_cyclic_of_one_site_scores_as_it_trains(tmp_path: Path) -> None:
    tasks: Tasks = []
    federate(tmp_path, settings(federation_rounds=2, federation_strategy="cyclic"), 1, app=noting(tasks))
    assert [(task.kind, task.split) for _, task in tasks] == [
        (TRAIN, "val"),
        (TRAIN, "val"),
        (EVALUATE, "val"),
        (EVALUATE, "test"),
    ]


def test_fewer_updates_than_a_rule_needs_end_the_run_with_the_cure(tmp_path: Path) -> None:
    table = settings(federation_rounds=2, federation_strategy="median", federation_quorum=1)
    words = (
        r"round 2: Median needs the updates of at least 3 sites, not of 2: ask more sites.*\(site-1: out of luck\)"
    )
    with pytest.raises(RoundError, match=words + ".*go on with --resume"):
        federate(tmp_path, table, 3, app=noting([], failing((2, 1))))
    assert Journal(tmp_path).read().round == 1


def test_a_strategy_knows_the_sites_and_the_rounds_of_the_study(tmp_path: Path) -> None:
    """FedDyn with one of two sites: h moves by alpha/2 of what that site moved, so N is 2 and not the replies' 1."""
    table = settings(federation_rounds=1, federation_strategy="feddyn", federation_quorum=1, strategy_alpha=1.0)
    state = federate(tmp_path, table, 2, app=noting([], failing((1, 1))))
    y = SCHEMA.unpack(honest(0, Task(TRAIN, 1, SCHEMA.hash, SCHEMA.pack(X0))).model)
    np.testing.assert_allclose(state.strategy["w"], -0.5 * (y["w"].astype(float) - X0["w"]), rtol=1e-12)


def test_a_site_without_validation_images_is_refused_where_their_loss_weighs_it(tmp_path: Path) -> None:
    def answer(index: int, task: Task) -> Reply:
        reply = honest(index, task)
        counts = {"val.images": 0.0} if index == 1 and not task.model else {}
        return replace(reply, scalars={**reply.scalars, **counts})

    words = r"site site-1 has no val images, whose loss feddg_ga weighs it by: raise data\.val"
    with pytest.raises(RoundError, match=words):
        federate(tmp_path, settings(federation_strategy="feddg_ga"), 2, app=noting([], answer))


def test_the_aggregate_of_honest_sites_is_the_strategys_own(tmp_path: Path) -> None:
    """The peek at the first update takes nothing away from the rule."""
    from strategies import Update

    state = federate(tmp_path, settings(federation_rounds=1, federation_strategy="median"), 3, app=client_app({}))
    task = Task(TRAIN, 1, SCHEMA.hash, SCHEMA.pack(X0))
    updates = [Update(name_of(i), SCHEMA.unpack(honest(i, task).model), 10 * (i + 1)) for i in range(3)]
    expected = STRATEGIES["median"]().aggregate(X0, updates)
    assert all(state.model[name].tobytes() == expected[name].tobytes() for name in X0)
