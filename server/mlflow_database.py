"""MLflow's SQLite file appears whole or not at all: its many migrations take seconds in which a process can die."""

import contextlib
import os
from pathlib import Path

from server.mlflow_uri import SQLITE, artifacts


def make_database(uri: str) -> None:
    """Make the SQLite file of the tracking URI `uri` unless it exists; other URIs need nothing.

    It is migrated under another name and linked into place, so that neither a kill nor another run that makes the
    same file leaves half a database.
    """
    if not uri.startswith(SQLITE) or (path := Path(uri.removeprefix(SQLITE))).exists():
        return
    # a client of an MLflow server needs no SQLAlchemy
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    part.unlink(missing_ok=True)
    try:
        store = SqlAlchemyStore(f"{SQLITE}{part}", artifacts(uri))
        store.engine.dispose()
        with contextlib.suppress(FileExistsError):  # another run was first
            path.hardlink_to(part)
    finally:
        part.unlink(missing_ok=True)
