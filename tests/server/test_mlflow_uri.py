from pathlib import Path

import pytest

from server.mlflow_uri import address, artifacts, redacted


def test_no_address_is_sqlite_beside_the_run(tmp_path: Path) -> None:
    uri = address(tmp_path / "runs" / "demo", "")
    assert uri == f"sqlite:///{tmp_path}/runs/mlflow.db"
    assert artifacts(uri) == f"file://{tmp_path}/runs/mlartifacts"


def test_a_relative_sqlite_file_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert address(Path("runs/demo"), "sqlite:///all.db") == f"sqlite:///{tmp_path}/all.db"


def test_a_server_decides_on_its_artifacts() -> None:
    assert address(Path("runs/demo"), "https://mlflow.example") == "https://mlflow.example"
    assert artifacts("https://mlflow.example") is None


def test_an_address_is_shown_without_its_password() -> None:
    assert redacted("see https://me:secret@mlflow.example/a and more") == "see https://mlflow.example/a and more"
    assert redacted("https://mlflow.example/@me") == "https://mlflow.example/@me"
