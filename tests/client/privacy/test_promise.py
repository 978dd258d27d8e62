"""Training without privacy on patients who were promised a bound is told, where there is such a promise."""

from pathlib import Path

from client.privacy.chain import HEAD
from client.privacy.ledger import Ledger
from client.privacy.promise import void_promise
from tests.client.privacy.test_ledger import ASKED, ROUND, WIDE
from tests.client.privacy.test_policy import YAML, policy

PLAIN = YAML.replace("unit: patient", "unit: none")


def test_a_promise_is_void_only_where_none_is_asked_for_and_somebody_has_paid(tmp_path: Path) -> None:
    assert void_promise(policy(tmp_path, PLAIN)) == ""
    ledger = Ledger(tmp_path / "privacy")
    ledger.open()
    assert void_promise(policy(tmp_path, PLAIN)) == ""
    ledger.spend(ASKED, ROUND, "patient", 50, WIDE)
    assert void_promise(policy(tmp_path, YAML)) == ""
    words = void_promise(policy(tmp_path, PLAIN))
    assert f"the ledger in {tmp_path / 'privacy'} holds 1 payment: its bound of epsilon 10 in all" in words
    assert "write unit: patient, or, for patients who are in none of those studies, name a ledger of" in words
    elsewhere = PLAIN.replace("  images: 80", "  images: 80\n  ledger: others")
    assert void_promise(policy(tmp_path, elsewhere)) == ""


def test_a_ledger_that_cannot_be_read_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    Ledger(tmp_path / "privacy").open()
    (tmp_path / "privacy" / HEAD).unlink()
    assert "is damaged, so what it holds is not known" in void_promise(policy(tmp_path, PLAIN))
