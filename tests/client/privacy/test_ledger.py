"""What is spent is counted, over studies, and never beyond the limits."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from client.privacy.accounting import Accountant, Charge, epsilon_of, pld_epsilon, rdp_epsilon
from client.privacy.chain import LINES
from client.privacy.ledger import Ledger, Limit, Limits, Request
from client.privacy.plan import make_plan
from protocol.errors import BudgetError, LedgerError, PolicyError
from tests.client.privacy.test_phase import SETTINGS

DELTA = 1e-5
ROUND = Charge(2.0, 0.2, 10)
ASKED = Request("breast", "run1", 1, "settings 12ab")
WIDE = Limits((Limit(100.0, DELTA, "privacy.epsilon"),), Limit(100.0, DELTA, "epsilon_all"))


def limits(study: float = 100.0, everything: float = 100.0, accountant: Accountant = "pld") -> Limits:
    return Limits((Limit(study, DELTA, "privacy.epsilon", accountant),), Limit(everything, DELTA, "epsilon_all"))


def opened(folder: Path) -> Ledger:
    ledger = Ledger(folder / "privacy")
    ledger.open()
    return ledger


def test_a_round_is_written_with_who_asked_when_and_what_is_left(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    entry = ledger.spend(ASKED, ROUND, "patient", 50, WIDE)
    assert Ledger(tmp_path / "privacy").entries() == [entry]
    assert (entry.request, entry.charge, entry.unit, entry.units) == (ASKED, ROUND, "patient", 50)
    assert entry.utc.endswith("+00:00")
    assert entry.epsilon == pld_epsilon([ROUND], DELTA) < entry.epsilon_all == rdp_epsilon([ROUND], DELTA)
    assert entry.left == 100 - entry.epsilon


def test_rounds_add_up_over_runs_studies_and_kinds_of_steps(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    other = Charge(1.5, 0.1, 7)
    ledger.spend(ASKED, ROUND, "patient", 50, WIDE)
    ledger.spend(replace(ASKED, run="run2", round=1), ROUND, "patient", 50, WIDE)
    entry = ledger.spend(replace(ASKED, study="lung"), other, "patient", 60, WIDE)
    assert entry.epsilon == epsilon_of([other], DELTA)
    assert entry.epsilon_all == rdp_epsilon([ROUND, ROUND, other], DELTA)
    assert entry.epsilon_all > ledger.entries()[1].epsilon_all > ledger.entries()[0].epsilon_all


def test_a_study_under_another_name_meets_the_limit_of_all(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    both = limits(everything=rdp_epsilon([ROUND], DELTA) * 1.01)
    ledger.spend(ASKED, ROUND, "patient", 50, both)
    with pytest.raises(PolicyError, match=r"round 1 of study 'new name' is refused.*all studies.*epsilon_all"):
        ledger.spend(replace(ASKED, study="new name"), ROUND, "patient", 50, both)
    assert len(ledger.entries()) == 1


@pytest.mark.parametrize(("accountant", "bound"), [("rdp", rdp_epsilon), ("pld", epsilon_of)])
def test_a_run_stops_at_its_budget_to_the_round(
    accountant: Accountant, bound: Callable[..., float], tmp_path: Path
) -> None:
    """What is written is one bound throughout, that of the accountant, so it rises from round to round."""
    settings = replace(SETTINGS, clip=1.0, epsilon=2.0, batch=20, accountant=accountant)
    plan = make_plan(settings, units=60, epochs=1, rounds=4)
    ledger, own = opened(tmp_path), limits(2.0, accountant=accountant)
    for number in range(1, 5):
        entry = ledger.spend(replace(ASKED, round=number), plan.charge(1), "patient", 60, own)
        assert entry.epsilon == bound([plan.charge(1)] * number, DELTA)
    assert 1.99 < entry.epsilon <= 2.0
    with pytest.raises(BudgetError, match=r"round 5.*beyond privacy\.epsilon = 2; spent 1\.99.*, left 0"):
        ledger.spend(replace(ASKED, round=5), plan.charge(1), "patient", 60, own)
    assert bound([plan.charge(1)] * 5, DELTA) > 2.0
    assert len(ledger.entries()) == 4


def test_a_round_within_the_tighter_bound_alone_is_let_through(tmp_path: Path) -> None:
    rdp, pld = rdp_epsilon([ROUND], DELTA), pld_epsilon([ROUND], DELTA)
    assert pld < rdp
    entry = opened(tmp_path).spend(ASKED, ROUND, "patient", 50, limits(study=(rdp + pld) / 2))
    assert entry.epsilon == pld


def test_the_strictest_of_a_studys_limits_counts(tmp_path: Path) -> None:
    policy, server = Limit(0.01, DELTA, "epsilon_study of site.yaml"), Limit(9.0, DELTA, "privacy.epsilon")
    with pytest.raises(PolicyError, match=r"beyond epsilon_study of site\.yaml = 0\.01; spent 0, left 0\.01"):
        opened(tmp_path).spend(ASKED, ROUND, "patient", 50, Limits((server, policy), WIDE.everything))


def test_steps_without_noise_pass_every_limit(tmp_path: Path) -> None:
    with pytest.raises(PolicyError, match="epsilon inf"):
        opened(tmp_path).spend(ASKED, Charge(0.0, 0.2, 1), "patient", 50, WIDE)


def test_without_a_ledger_nothing_is_spent(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="holds no ledger"):
        Ledger(tmp_path / "privacy").spend(ASKED, ROUND, "patient", 50, WIDE)
    opened(tmp_path)
    with pytest.raises(LedgerError, match="holds a ledger already"):
        opened(tmp_path)


def test_a_ledger_that_was_made_cheaper_is_refused(tmp_path: Path) -> None:
    ledger = opened(tmp_path)
    ledger.spend(ASKED, ROUND, "patient", 50, WIDE)
    path = tmp_path / "privacy" / LINES
    first, line = path.read_text().splitlines()
    record = json.loads(line)
    record["charge"]["steps"] = 1
    path.write_text(f"{first}\n{json.dumps(record)}\n")
    with pytest.raises(LedgerError, match=r"line 2 of ledger\.jsonl is not what was written"):
        ledger.spend(ASKED, ROUND, "patient", 50, WIDE)
