import subprocess
import sys

import pytest

import fedurwkv
from protocol.errors import DataError
from protocol.settings import ROOT


def outcome(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["fedurwkv", *words])
    with pytest.raises(SystemExit) as end:
        fedurwkv.main()
    return int(end.value.code or 0)


def test_the_front_door_loads_nothing_heavy() -> None:
    heavy = "{'torch', 'flwr', 'mlflow', 'numpy', 'albumentations', 'matplotlib'}"
    code = f"import sys, fedurwkv; sys.exit(str({heavy} & sys.modules.keys()) if {heavy} & sys.modules.keys() else 0)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    "command", ["simulate", "compare", "partition", "site", "coordinator", "report", "track", "predict", "export"]
)
def test_every_command_has_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    assert outcome(monkeypatch, command, "--help") == 0
    assert "Usage" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["simulat"], "No such command 'simulat'. Did you mean 'simulate'?\n"),
        (["site", "chek"], "No such command 'chek'. Did you mean 'check'?\n"),
        (["coordinator", "inti"], "No such command 'inti'. Did you mean 'init'?\n"),
        (["simulate", "--sett", "a=1"], "--sett"),
        (["partition", "x.yaml"], "Missing option '--out'"),
    ],
)
def test_words_that_no_command_knows_are_one_line_and_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], says: str
) -> None:
    assert outcome(monkeypatch, *words) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.count("\n") == 1


def test_an_error_is_a_stack_trace_only_with_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["site", "check", "nowhere", "--set", "train.lr="]
    assert outcome(monkeypatch, *words) == 2
    monkeypatch.setattr(sys, "argv", ["fedurwkv", *words, "--debug"])
    with pytest.raises(fedurwkv.FedURWKVError):
        fedurwkv.main()


def test_failed_work_is_code_1() -> None:
    assert DataError("x").exit_code == 1
