"""A real site: its policy decides what is trained, paid for, and let out."""

import logging
from pathlib import Path

import numpy as np
import pytest

from client.privacy.chain import LINES
from client.privacy.ledger import Ledger
from client.privacy.policy import Policy, read_policy
from client.trainer import Trainer
from protocol.errors import BudgetError, LedgerError, PolicyError, RunError
from protocol.messages import DESCRIBE, TRAIN, Task
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
    assert reply.scalars["epsilon"] == round(entry.epsilon, 2)
    assert "train.loss stays here: allow.scalars of" in caplog.text
    assert real(folder, table).answer(Task(DESCRIBE)).scalars.keys() == {"train.images", "val.images"}
    narrower = real(folder, table, policy(folder, ", epsilon\n", "\n"))  # also for a reply that was kept before
    assert narrower.answer(task_of(table)).scalars.keys() == {"train.images", "val.images", "val.dice"}


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


def test_a_place_for_the_replies_must_be_named(folder: Path) -> None:
    with pytest.raises(RunError, match="has a site keep its replies: name a folder"):
        Trainer(folder, small(**PRIVATE), policy(folder))
