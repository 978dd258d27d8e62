import sqlite3
from pathlib import Path

import pytest
from mlflow.store.tracking import sqlalchemy_store

from server.mlflow_database import make_database
from server.mlflow_uri import SQLITE


def test_the_database_is_whole_and_alone(tmp_path: Path) -> None:
    make_database(f"{SQLITE}{tmp_path / 'runs' / 'mlflow.db'}")
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mlflow.db"]
    with sqlite3.connect(tmp_path / "runs" / "mlflow.db") as database:
        tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        assert database.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
    database.close()
    assert {"experiments", "runs", "metrics"} <= tables
    assert not any(name.startswith("_alembic_tmp") for name in tables)


def test_dying_in_a_migration_leaves_no_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def die(uri: str, root: str) -> None:
        Path(uri.removeprefix(SQLITE)).write_bytes(b"half a database")
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlalchemy_store, "SqlAlchemyStore", die)
    with pytest.raises(KeyboardInterrupt):
        make_database(f"{SQLITE}{tmp_path / 'mlflow.db'}")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_exists_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"mine")
    make_database(f"{SQLITE}{tmp_path / 'mlflow.db'}")
    assert (tmp_path / "mlflow.db").read_bytes() == b"mine"
