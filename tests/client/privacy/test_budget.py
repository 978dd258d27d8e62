"""`fedurwkv site budget`: the ledger as a table."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from client.commands import site
from client.privacy.accounting import pld_epsilon, rdp_epsilon
from client.privacy.budget import budget
from client.privacy.ledger import Ledger
from client.privacy.noised import score_charge
from protocol.errors import LedgerError, PolicyError
from tests.client.privacy.test_ledger import ASKED, DELTA, ROUND, WIDE
from tests.client.privacy.test_policy import YAML


def shown(folder: Path, *, new: bool = False, last: int = 50) -> str:
    console = Console(file=io.StringIO(), width=140)
    budget(folder, console, new=new, last=last)
    return console.file.getvalue()


def test_a_new_ledger_is_opened_by_a_word_and_only_once(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match=rf"holds no ledger; .*site budget {tmp_path} --open"):
        shown(tmp_path)
    assert "nothing was spent yet" in shown(tmp_path, new=True)
    assert "no site.yaml: nothing is trained" in shown(tmp_path)
    with pytest.raises(LedgerError, match="holds a ledger already"):
        shown(tmp_path, new=True)


@pytest.mark.parametrize("new", [False, True])
def test_a_folder_that_is_not_there_gets_no_ledger(tmp_path: Path, new: bool) -> None:
    with pytest.raises(LedgerError, match=f"{tmp_path}/nope is no folder: give the path of a site"):
        shown(tmp_path / "nope", new=new)
    assert list(tmp_path.iterdir()) == []


def test_payments_sums_and_the_hospitals_limits_are_shown(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(YAML.replace("  images: 80", "  images: 80\n  ledger: books"))
    shown(tmp_path, new=True)
    ledger = Ledger(tmp_path / "books")
    for number in (1, 2):
        ledger.spend(replace(ASKED, round=number), ROUND, "patient", 50, WIDE)
    ledger.spend(replace(ASKED, study="lung", words="2 scores of val"), score_charge(20, 2), "patient", 9, WIDE)
    last = ledger.spend(replace(ASKED, study="lung"), ROUND, "patient", 50, WIDE)
    text = shown(tmp_path)
    rows = [line for line in text.splitlines() if "run1" in line]
    assert [("breast" in row, "lung" in row) for row in rows] == [
        (True, False),
        (True, False),
        (False, True),
        (False, True),
    ]
    assert f"{last.epsilon_all:.4g}" in rows[3]
    lung, every = [score_charge(20, 2), ROUND], [ROUND, ROUND, score_charge(20, 2), ROUND]
    assert last.epsilon == pld_epsilon(lung, DELTA) < last.epsilon_all == rdp_epsilon(every, DELTA)
    for said, epsilon, charges in [
        ("lung: epsilon {:.4g} at delta 1e-05, patient privacy;", last.epsilon, lung),
        ("all studies, 4 payments: epsilon {:.4g} at delta 1e-05;", last.epsilon_all, every),
    ]:
        both = f" by RDP {rdp_epsilon(charges, DELTA):.4g}, by PLD {pld_epsilon(charges, DELTA):.4g}\n"
        assert said.format(epsilon) + both in text
    assert "granted by site.yaml: epsilon 4 a study, 10 in all at delta 1e-05" in text
    assert "run1" in (short := shown(tmp_path, last=1))
    assert short.count("run1") == 1


def test_a_policy_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text("data: .")
    with pytest.raises(PolicyError, match=r"privacy\.unit is missing"):
        shown(tmp_path)


def test_the_command_prints_it(tmp_path: Path) -> None:
    done = CliRunner().invoke(site, ["budget", str(tmp_path), "--open"])
    assert done.exit_code == 0
    assert "nothing was spent yet" in done.output


def test_a_study_cannot_write_on_the_terminal_by_its_name(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "privacy")
    ledger.open()
    ledger.spend(replace(ASKED, study="[/red]a[bold]", run="b\x1b[2J\nc"), ROUND, "patient", 50, WIDE)
    text = shown(tmp_path)
    assert "\x1b" not in text
    assert r"'b\x1b[2J\nc'" in text
    assert text.count("[/red]a[bold]") == 2


def test_a_sum_that_training_without_privacy_would_make_void_says_so(tmp_path: Path) -> None:
    (tmp_path / "site.yaml").write_text(YAML)
    shown(tmp_path, new=True)
    Ledger(tmp_path / "privacy").spend(ASKED, ROUND, "patient", 50, WIDE)
    assert "void" not in shown(tmp_path)
    (tmp_path / "site.yaml").write_text(YAML.replace("unit: patient", "unit: none"))
    assert "note: privacy.unit = none" in shown(tmp_path)
