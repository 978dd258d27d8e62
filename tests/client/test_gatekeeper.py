"""A real site: its policy decides what is trained, paid for, and let out."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.privacy import private_site
from client.privacy.accounting import rdp_epsilon
from client.privacy.chain import LINES
from client.privacy.ledger import Entry, Ledger
from client.privacy.noised import score_charge
from client.privacy.policy import Policy, read_policy
from client.site import read_site
from client.trainer import Trainer
from protocol.errors import BudgetError, DataError, LedgerError, PolicyError, RunError
from protocol.messages import DESCRIBE, EVALUATE, TRAIN, Task
from protocol.packing import Schema
from protocol.settings import Table
from server.app import initial_model
from tests.client.phantoms import small, small_sites

YAML = """\
privacy: {unit: patient, epsilon_study: 4, epsilon_all: 4, delta: 1e-5, batch: 2, patients: 2, images: 2}
allow:
  strategies: fedavg, scaffold
  scalars: train.images, val.images, val.dice, epsilon
  decimals: 2
  code: any
  settings: any
"""
PRIVATE = {"privacy_epsilon": 4.0, "privacy_batch": 3, "privacy_accountant": "rdp", "data_size": 16}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site with a policy and an opened ledger."""
    (folder, _) = small_sites(tmp_path, small(**PRIVATE))
    (folder / "site.yaml").write_text(YAML)
    Ledger(folder / "privacy").open()
    return folder


def policy(folder: Path, before: str = "", after: str = "") -> Policy:
    assert before in YAML
    (folder / "site.yaml").write_text(YAML.replace(before, after))
    return read_policy(folder)


def real(folder: Path, table: Table, own: Policy | None = None) -> Trainer:
    return Trainer(folder, table, own or policy(folder), state=folder.parent / "state" / folder.name)


def task_of(table: Table, number: int = 1, shift: float = 0.0) -> Task:
    x = {name: a + np.float32(shift) for name, a in initial_model(table).items()}
    schema = Schema.like(x)
    return Task(TRAIN, number, schema.hash, schema.pack(x), study="s", accepted=number - 1)


def test_a_round_asked_for_again_is_sent_again_and_paid_once(folder: Path) -> None:
    """Its noise cannot be drawn again, so the same weights in another process are the same reply."""
    table = small(**PRIVATE)
    first = real(folder, table).answer(task_of(table))
    assert real(folder, table).answer(task_of(table)) == first
    assert len(Ledger(folder / "privacy").entries()) == 1
    other = real(folder, table).answer(task_of(table, shift=1e-3))
    assert other.model != first.model
    assert len(Ledger(folder / "privacy").entries()) == 2
    with pytest.raises(BudgetError, match=r"beyond privacy\.epsilon = 4"):
        real(folder, table).answer(task_of(table, 3))


def test_a_round_that_is_given_up_was_paid_for_and_draws_other_noise(folder: Path) -> None:
    table = small(**PRIVATE)
    trainer = real(folder, table)
    trainer.stop()
    with pytest.raises(Exception, match="given up on request"):
        trainer.answer(task_of(table))
    assert len(Ledger(folder / "privacy").entries()) == 1
    real(folder, table).answer(task_of(table))
    assert len(Ledger(folder / "privacy").entries()) == 2


def test_only_what_the_policy_names_leaves_and_rounded(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = small(**PRIVATE)
    with caplog.at_level(logging.WARNING):
        reply = real(folder, table).answer(task_of(table))
    assert reply.scalars.keys() == {"train.images", "val.images", "val.dice", "epsilon"}
    (entry,) = Ledger(folder / "privacy").entries()
    assert reply.scalars["epsilon"] == entry.epsilon  # rounded it would tell too little
    kept = ", ".join([f"seconds.{name}" for name in ("evaluate", "load", "pack", "read", "train")] + ["train.loss"])
    assert f"does not name them: {kept}, train.steps" in caplog.text
    assert real(folder, table).answer(Task(DESCRIBE)).scalars.keys() == {"train.images", "val.images"}
    narrower = real(folder, table, policy(folder, ", epsilon\n", "\n"))  # also for a reply that was kept before
    assert narrower.answer(task_of(table)).scalars.keys() == {"train.images", "val.images", "val.dice"}


def test_a_study_without_privacy_warns_of_the_promise_that_it_breaks(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    private, plain = small(**PRIVATE), small(data_size=16)
    own = policy(folder, "unit: patient", "unit: none")
    with caplog.at_level(logging.WARNING):
        real(folder, plain, own)  # the ledger is empty yet
        real(folder, private, own).answer(task_of(private))
        assert "void" not in caplog.text
        real(folder, plain, own)
    assert "this study trains without privacy: privacy.unit = none in" in caplog.text
    assert "holds 1 payment: its bound of epsilon 4 in all" in caplog.text


def test_numbers_of_steps_leave_exactly(folder: Path) -> None:
    table = small(**PRIVATE, federation_strategy="scaffold", train_optimizer="sgd", train_lr=1.2345e-4)
    named = policy(folder, "epsilon\n", "epsilon, train.travel\n")
    trainer = real(folder, table, named)
    received = trainer.strategy.broadcast(initial_model(table))
    beside = Schema.like(received)
    task = task_of(table)
    task = Task(**{**vars(task), "received": beside.pack(received), "received_schema": beside.hash})
    assert 0 < trainer.answer(task).scalars["train.travel"] < 1e-3


def test_a_number_that_the_server_needs_must_be_allowed(folder: Path) -> None:
    scaffold = small(**PRIVATE, federation_strategy="scaffold", train_optimizer="sgd")
    with pytest.raises(PolicyError, match=r"train\.travel, which the server needs, is refused.*allow\.scalars"):
        real(folder, scaffold)
    with pytest.raises(PolicyError, match=r"train\.images, which the server needs, is refused"):
        real(folder, small(**PRIVATE), policy(folder, "train.images, ", ""))


def test_a_study_that_the_policy_forbids_is_refused(folder: Path) -> None:
    with pytest.raises(PolicyError, match=r"privacy\.epsilon = 0.*wants patient privacy"):
        real(folder, small(data_size=16))
    with pytest.raises(PolicyError, match=r"'fedprox' is refused"):
        real(folder, small(**PRIVATE, federation_strategy="fedprox"))
    with pytest.raises(PolicyError, match=r"below 1 / \d patients"):
        real(folder, small(**PRIVATE, privacy_delta=0.4), policy(folder, "1e-5", "0.5"))
    (folder / "privacy" / LINES).write_text("")
    with pytest.raises(LedgerError, match="has 0 lines"):
        real(folder, small(**PRIVATE))


def test_a_crafted_model_is_refused_before_anything_is_paid(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = small(**PRIVATE)
    with pytest.raises(PolicyError, match="the global model is refused"):
        real(folder, table).answer(task_of(table, shift=100.0))
    assert f"{folder.name} refuses round 1: the global model is refused" in caplog.text
    assert Ledger(folder / "privacy").entries() == []
    with pytest.raises(PolicyError, match="the global model is refused"):  # its scores would spell out an image
        real(folder, table).answer(replace(task_of(table, shift=100.0), kind=EVALUATE))
    open_site = policy(folder, "unit: patient", "unit: none")
    with pytest.raises(PolicyError, match="the global model is refused"):  # nor without privacy
        real(folder, small(data_size=16), open_site).answer(task_of(table, shift=100.0))


def test_a_model_is_compared_with_the_last_one_trained_on_even_by_a_new_process(folder: Path) -> None:
    """A step of 6 root mean squares of a bias is allowed, two of them at once are not, one after the other are."""
    table = small(**PRIVATE)
    x = dict(initial_model(table))
    schema = Schema.like(x)

    def task(number: int, bias: float) -> Task:
        moved = {**x, "head.bias": np.full_like(x["head.bias"], bias)}
        return Task(TRAIN, number, schema.hash, schema.pack(moved), study="s", accepted=number - 1)

    far = 5 * max(1.0, float(np.abs(x["head.bias"]).max()))
    with pytest.raises(PolicyError, match=r"head\.bias moved by"):
        real(folder, table).answer(task(1, 20 * far))
    real(folder, table).answer(task(1, 0.09 * far))
    real(folder, table).answer(task(2, 0.8 * far))


def test_a_round_that_is_refused_does_not_move_what_models_are_compared_with(folder: Path) -> None:
    table = small(**PRIVATE)
    trainer = real(
        folder, table, policy(folder, "epsilon_study: 4, epsilon_all: 4", "epsilon_study: 4, epsilon_all: 1e9")
    )
    pay, trainer.gatekeeper._private.pay = trainer.gatekeeper._private.pay, refuse
    steps = [task_of(table, shift=shift) for shift in (0.1, 0.4)]
    with pytest.raises(BudgetError):
        trainer.answer(steps[0])
    trainer.gatekeeper._private.pay = pay
    with pytest.raises(PolicyError, match="the global model is refused"):
        trainer.answer(steps[1])


def refuse(*words: object) -> Entry:
    raise BudgetError("spent")


def test_scores_of_the_patients_who_are_trained_on_cannot_be_asked_for(folder: Path) -> None:
    table = small(**PRIVATE)
    trainer = real(folder, table, policy(folder, "train.images, val.images, val.dice, epsilon", "any"))
    for kind in (TRAIN, EVALUATE):
        with pytest.raises(PolicyError, match="scores of the split 'train' are refused"):
            trainer.answer(replace(task_of(table), kind=kind, split="train"))
    assert Ledger(folder / "privacy").entries() == []
    assert "val.dice" in trainer.answer(replace(task_of(table), kind=EVALUATE)).scalars


def test_a_score_that_was_kept_as_it_is_does_not_leave_once_noise_is_asked_for(folder: Path) -> None:
    table = small(**PRIVATE)
    task = task_of(table)
    exact = real(folder, table, policy(folder, "epsilon\n", "epsilon, val.loss\n")).answer(task)
    noisy = real(folder, table, policy(folder, "epsilon\n", NOISY)).answer(task)
    assert noisy.scalars["val.loss"] != exact.scalars["val.loss"]
    assert noisy.model != exact.model
    assert len(Ledger(folder / "privacy").entries()) == 3  # the round, then scores and round


def test_what_comes_beside_a_model_is_looked_at_before_anything_is_paid(folder: Path) -> None:
    table = small(**PRIVATE, federation_strategy="scaffold", train_optimizer="sgd")
    trainer = real(folder, table, policy(folder, "val.dice, epsilon", "val.dice, epsilon, train.travel"))
    beside = trainer.strategy.broadcast(initial_model(table))
    schema = Schema.like(beside)
    packed = schema.pack({name: np.full_like(array, np.nan) for name, array in beside.items()})
    with pytest.raises(PolicyError, match="holds values that are not finite"):
        trainer.answer(replace(task_of(table), received=packed, received_schema=schema.hash))
    assert Ledger(folder / "privacy").entries() == []


def test_every_change_of_a_round_is_a_release_of_its_own(folder: Path) -> None:
    """A study's name and what comes beside the model are the server's words: none makes a round cheaper."""
    table = small(**PRIVATE, federation_rounds=6, federation_strategy="scaffold", train_optimizer="sgd")
    own = policy(folder, "val.dice, epsilon", "val.dice, epsilon, train.travel")
    trainer = real(folder, table, own)
    beside = trainer.strategy.broadcast(initial_model(table))
    schema = Schema.like(beside)
    first = replace(task_of(table), received=schema.pack(beside), received_schema=schema.hash)
    other = {name: array + np.float32(1e-3) for name, array in beside.items()}
    tasks = [first, replace(first, received=schema.pack(other)), replace(first, split="")]
    models = {trainer.answer(task).model for task in tasks}
    with pytest.raises(RunError, match="belongs to another study"):
        trainer.answer(replace(first, study="t"))
    elsewhere = Trainer(folder, table, own, state=folder.parent / "state" / "t")
    models.add(elsewhere.answer(replace(first, study="t")).model)
    entries = Ledger(folder / "privacy").entries()
    assert len(models) == len(entries) == 4
    assert [entry.request.study for entry in entries] == ["s", "s", "s", "t"]
    assert sorted(entry.epsilon_all for entry in entries) == [entry.epsilon_all for entry in entries]
    assert trainer.answer(tasks[-1]).model in models  # the very same is sent again, and costs nothing
    assert len(Ledger(folder / "privacy").entries()) == 4


def test_no_choice_of_the_batch_makes_a_step_of_one_image(folder: Path) -> None:
    """Of n images, steps of n - 1 would leave a second step to one of them, as heavy as all the others together."""
    own = policy(folder, "unit: patient", "unit: none")
    images = len(read_site(folder, seed=0, val=0.15, test=0.2).split("train"))
    table = small(data_size=16, train_batch=images - 1, train_augment=False)
    steps = replace(own, allow=replace(own.allow, scalars="any"))
    assert real(folder, table, steps).answer(task_of(table)).scalars["train.steps"] == 1
    with pytest.raises(PolicyError, match=r"train\.batch = 1 is refused"):
        real(folder, small(data_size=16, train_batch=1), own)


def ask_all(trainer: Trainer, table: Table) -> None:
    """Have every image read."""
    trainer.answer(replace(task_of(table), kind=EVALUATE, split="test"))
    trainer.answer(task_of(table))


def test_names_of_files_stay_at_the_site(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = small(**PRIVATE)
    trainer = real(folder, table)
    first = next(iter(sorted((folder / "images").iterdir())))
    first.write_bytes(b"no image")
    with caplog.at_level(logging.ERROR), pytest.raises(DataError, match="which file") as caught:
        ask_all(trainer, table)
    assert first.stem not in str(caught.value)
    assert first.name in caplog.text
    first.unlink()
    with pytest.raises(DataError, match="which file") as caught:
        real(folder, table)
    assert first.stem not in str(caught.value)


NOISY = "epsilon, val.loss, test.dice\n  noised: val.dice, val.loss, test.dice\n  noise: 20\n  loss_bound: 2\n"


def test_scores_with_noise_are_paid_for_before_they_leave_and_fit_the_study(folder: Path) -> None:
    """Rounds, and the closing evaluation on val and test, cost what the study may; asked again they are the same."""
    table = small(**PRIVATE)
    every = policy(folder, "train.images, val.images, val.dice, epsilon", "any")
    exact = real(folder, table, every).answer(replace(task_of(table), kind=EVALUATE)).scalars["val.loss"]
    own = policy(folder, "epsilon\n", NOISY)
    tasks = [task_of(table, 1), task_of(table, 2)]
    tasks += [replace(tasks[1], kind=EVALUATE, split=split) for split in ("val", "test")]
    replies = [real(folder, table, own).answer(task) for task in tasks]
    paid = Ledger(folder / "privacy").entries()
    kinds = [(entry.request.round, entry.request.words.split(", ")[1].split(" ")[0]) for entry in paid]
    assert kinds == [(1, "2"), (1, "model"), (2, "2"), (2, "model"), (2, "2"), (2, "1")]
    scored = [entry.charge for entry in paid if not entry.request.words.split(", ")[1].startswith("model")]
    assert scored == [score_charge(20.0, count) for count in (2, 2, 2, 1)]
    assert 3.9 < rdp_epsilon([entry.charge for entry in paid], 1e-5) <= 4.0
    assert replies[0].scalars["epsilon"] == paid[1].epsilon
    dice = [reply.scalars.get("val.dice", reply.scalars.get("test.dice")) for reply in replies]
    assert all(0 <= value <= 1 for value in dice)
    assert replies[0].scalars["val.loss"] != exact
    again = [real(folder, table, own).answer(task) for task in tasks]
    assert again == replies
    assert Ledger(folder / "privacy").entries() == paid
    with pytest.raises(BudgetError, match=r"round 3 of study 's' is refused.*beyond privacy\.epsilon = 4"):
        real(folder, table, own).answer(replace(tasks[2], round=3))


def test_a_score_is_not_drawn_before_it_is_paid_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever stops the payment, nothing leaves; whatever stops what comes after it, it stays paid."""
    table = small(**PRIVATE)
    own = policy(folder, "epsilon\n", NOISY)

    def dying(*words: object) -> float:
        assert len(Ledger(folder / "privacy").entries()) == 1
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(private_site, "noised_mean", dying)
        with pytest.raises(KeyboardInterrupt):
            real(folder, table, own).answer(replace(task_of(table), kind=EVALUATE))
    assert len(Ledger(folder / "privacy").entries()) == 1


def test_a_place_for_the_replies_must_be_named(folder: Path) -> None:
    with pytest.raises(RunError, match="has a site keep its replies: name a folder"):
        Trainer(folder, small(**PRIVATE), policy(folder))
