"""Where MLflow lives: its address, its artifacts, and how an address is shown."""

import re
from pathlib import Path

SQLITE = "sqlite:///"


def address(run: Path, uri: str) -> str:
    """The tracking URI for the run in the folder `run`; "" is the SQLite file mlflow.db beside that folder.

    A relative SQLite file is made absolute, so that a process started elsewhere finds the same one.
    """
    if not uri:
        return f"{SQLITE}{run.resolve().parent / 'mlflow.db'}"
    if uri.startswith(SQLITE):
        return f"{SQLITE}{Path(uri.removeprefix(SQLITE)).resolve()}"
    return uri


def artifacts(uri: str) -> str | None:
    """Where a new experiment keeps its files: beside a SQLite file; elsewhere the server decides (None)."""
    if uri.startswith(SQLITE):
        return (Path(uri.removeprefix(SQLITE)).parent / "mlartifacts").as_uri()
    return None


def redacted(text: str) -> str:
    """`text` without the `user:password@` of any address in it."""
    return re.sub(r"://[^/@\s]*@", "://", text)
