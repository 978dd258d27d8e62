"""`python -m server.mlflow_comparison FOLDER`, as `server.tracking_comparison` runs it: a comparison told to MLflow.

The comparison is a run whose children are its federations, each of which has its sites as children. It is found again
by a key that FOLDER/mlflow.json keeps for each MLflow server.
"""

import json
import logging
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from protocol.atomic import write_atomic
from server.mlflow_database import make_database
from server.mlflow_log import FEDERATION, KEY_TAG, PARENT_TAG, experiment_id, place_of
from server.mlflow_uri import address, redacted
from server.tracking_comparison import untracked
from server.tracking_process import reason

FILES = ("compare.html", "compare.csv", "compare.json")
NUMBERS = ("dice", "deviation", "iou", "site_mean", "worst_site", "bytes", "seconds")


def tell(folder: Path, runs: Sequence[Path], uri: str, experiment: str) -> str:
    """Tell MLflow of the comparison; the line that says where to look.

    Raises:
        MlflowException and what its transports raise: MLflow cannot be reached or refuses.
    """
    where = address(folder, uri)
    server = redacted(where)
    make_database(where)
    client = MlflowClient(where)
    number = experiment_id(client, experiment, where)
    parent = _found(client, number, _key(folder, server), folder.name)
    found: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    time = (folder / "compare.json").stat().st_mtime_ns // 1_000_000  # telling twice adds no second point
    client.log_batch(parent, metrics=[Metric(name, value, time, 0) for name, value in _numbers(found)])
    for file in FILES:
        client.log_artifact(parent, str(folder / file))
    for run in runs:
        child = _run_id(run, server)
        if child:
            client.set_tag(child, PARENT_TAG, parent)
    client.set_terminated(parent, "FAILED" if found["failed"] else "FINISHED")
    return place_of(where, number, parent)


def _key(folder: Path, server: str) -> str:
    """The key of this comparison on this server, remembered before it is used."""
    path = folder / "mlflow.json"
    book: dict[str, str] = json.loads(path.read_text()) if path.is_file() else {}
    if server not in book:
        book[server] = uuid.uuid4().hex
        write_atomic(path, json.dumps(book))
    return book[server]


def _found(client: MlflowClient, experiment: str, key: str, name: str) -> str:
    """MLflow's id of the comparison's run, made when it is missing."""
    known = client.search_runs([experiment], f"tags.`{KEY_TAG}` = '{key}'")
    run = known[0] if known else client.create_run(experiment, tags={KEY_TAG: key}, run_name=name)
    return str(run.info.run_id)


def _numbers(found: dict[str, Any]) -> list[tuple[str, float]]:
    named = [
        (f"{one['name']}_{number}", one[number])
        for one in found["standings"]
        for number in NUMBERS
        if one[number] is not None
    ]
    for one in found["differences"]:
        named += [(f"{one['name']}_difference_{part}", one["interval"][part]) for part in ("estimate", "low", "high")]
    return named


def _run_id(run: Path, server: str) -> str:
    """MLflow's id of a run, as its own tracking has written it down; "" where it has not."""
    path = run / "mlflow.json"
    servers = json.loads(path.read_text())["servers"] if path.is_file() else {}
    return str(servers.get(server, {}).get("runs", {}).get(FEDERATION, ""))


def main() -> None:
    """Read the settings from the standard input, tell MLflow, and answer with one line."""
    logging.basicConfig(format="%(asctime)s %(message)s")
    answer = os.dup(1)
    os.dup2(2, 1)  # MLflow prints; the answer alone goes to the comparison
    words = json.load(sys.stdin)
    try:
        line = tell(Path(sys.argv[1]), [Path(run) for run in words["runs"]], words["uri"], words["experiment"])
    except Exception as error:
        logging.getLogger("tracking").warning("%s", error, exc_info=True)
        line = untracked(reason(error, words["uri"]))
    os.write(answer, line.encode())


if __name__ == "__main__":
    main()
