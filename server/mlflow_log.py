"""What MLflow is told of a run, once each.

A parent run is the federation and a child run is a site; a metric's step is the round. RUN/mlflow.json
remembers, for each MLflow server, the key under which the runs are found again and the last step logged of each
metric. A process may be killed between telling MLflow and remembering it, so telling twice must change
nothing: a metric's time is computed from the journal (MLflow drops an equal point), and the runs carry the key
as a tag, which is remembered before they are made.
"""

import dataclasses
import json
import shlex
import uuid
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from protocol.atomic import write_atomic
from protocol.settings import load_scenario
from server.journal import read_state
from server.mlflow_database import make_database
from server.mlflow_uri import address, artifacts, redacted

SCHEMA = 1
FEDERATION = ""  # beside the sites' names
KEY_TAG = "fedurwkv.key"
SITE_TAG = "fedurwkv.site"
PARENT_TAG = "mlflow.parentRunId"
BATCH = 1000  # metrics MLflow takes at once
PARAMS = 100
FILES = ["result.json", "curves.png", "report.html", "model.safetensors"]


@dataclass(frozen=True)
class Point:
    """One number for MLflow: of a site, or of the FEDERATION."""

    site: str
    metric: str
    step: int
    value: float


def points(history: list[dict[str, Any]], result: Mapping[str, Any] | None) -> Iterator[Point]:
    """All numbers that a run has to tell, in the order of the rounds; what is null is left out.

    `history` is the list of round records and `result` the content of result.json, both of the schema in
    the documentation.
    """
    for record in history:
        yield from _numbers(FEDERATION, record["round"], _of_federation(record))
        for site, entry in record["sites"].items():
            yield from _numbers(site, record["round"], entry)
    if result is not None and history:
        last = history[-1]["round"]
        final = {f"final_{name}": value for name, value in result["final"].items()}
        seconds = {f"seconds_{name}": value for name, value in result["seconds"].items()}
        yield from _numbers(FEDERATION, last, final | seconds)
        for site, entry in result["final"]["sites"].items():
            yield from _numbers(site, last, {f"final_{name}": value for name, value in entry.items()})


def _of_federation(record: Mapping[str, Any]) -> dict[str, Any]:
    entries = record["sites"].values()
    dice = [entry["dice"] for entry in entries if entry.get("dice") is not None]
    epsilons = [entry["epsilon"] for entry in entries if entry.get("epsilon") is not None]
    return {
        **record,
        "failed_sites": len(record["failed"]),
        "mean_site_dice": sum(dice) / len(dice) if dice else None,
        "epsilon": max(epsilons, default=None),
    }


def _numbers(site: str, step: int, entry: Mapping[str, Any]) -> Iterator[Point]:
    for name, value in entry.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "round":
            yield Point(site, name, step, float(value))


@dataclass
class Memory:
    """What one MLflow server has been told; `runs` and `logged` go by site and by MLflow's run id."""

    key: str
    began: int  # milliseconds since 1970
    runs: dict[str, str] = field(default_factory=dict)
    logged: dict[str, dict[str, int]] = field(default_factory=dict)


class MlflowLog:
    """One run's folder and its MLflow runs, made or found again, set to RUNNING.

    Args:
        run: the folder, with settings.yaml.
        uri: MLflow's tracking URI; "" is `mlflow.db` beside the folder.
        experiment: MLflow experiment, made when it is missing.

    Raises:
        MlflowException and what its transports raise: MLflow cannot be reached or refuses.
    """

    def __init__(self, run: Path, uri: str, experiment: str) -> None:
        self._run = run
        self._uri = address(run, uri)
        self._server = redacted(uri)
        self._seen: object = None
        self._memory = self._remembered()
        self._remember()
        make_database(self._uri)
        self._client = MlflowClient(self._uri)
        self._experiment = experiment_id(self._client, experiment, self._uri)
        known = self._find_runs()
        self._memory.runs = {site: entry.info.run_id for site, entry in known.items()}
        for entry in known.values():
            if entry.info.status != "RUNNING":
                self._client.update_run(entry.info.run_id, status="RUNNING")
        self._log_params(known.get(FEDERATION))
        self._remember()

    @property
    def where(self) -> str:
        """One line: where to look."""
        return place_of(self._uri, self._experiment, self._memory.runs[FEDERATION])

    def catch_up(self) -> None:
        """Log the numbers of the journal and of result.json that MLflow has not got."""
        now = [_mtime(self._run / "checkpoint" / "latest"), _mtime(self._run / "result.json")]
        if now == self._seen or now[0] is None:
            return
        state = read_state(self._run)
        result = self._run / "result.json"
        history = state["history"]
        times = self._times(history)
        batches: dict[str, list[Metric]] = defaultdict(list)
        for site in [entry["name"] for entry in state["sites"]]:
            self._run_id(site)
        for point in points(history, json.loads(result.read_text()) if now[1] is not None else None):
            run_id = self._run_id(point.site)
            if point.step > self._memory.logged.get(run_id, {}).get(point.metric, -1):
                batches[run_id].append(Metric(point.metric, point.value, times[point.step], point.step))
        for run_id, metrics in batches.items():
            for first in range(0, len(metrics), BATCH):
                self._log_metrics(run_id, metrics[first : first + BATCH])
        self._seen = now

    def close(self, status: str) -> None:
        """Upload the artifacts that are there and end the runs with `status` (FINISHED, FAILED, KILLED)."""
        parent = self._run_id(FEDERATION)
        for name in FILES:
            if (self._run / name).is_file():
                self._client.log_artifact(parent, str(self._run / name))
        settings = (self._run / "settings.yaml").read_text()
        self._client.log_text(parent, redacted(settings), "settings.yaml")
        if (self._run / "overlays").is_dir():
            self._client.log_artifacts(parent, str(self._run / "overlays"), "overlays")
        for run_id in self._memory.runs.values():
            self._client.set_terminated(run_id, status)

    def _times(self, history: list[dict[str, Any]]) -> dict[int, int]:
        """Milliseconds since 1970 for each round: the same however often and late they are computed."""
        times, clock = {}, float(self._memory.began)
        for record in history:
            clock += 1000 * record["seconds"]
            times[record["round"]] = int(clock)
        return times

    def _log_metrics(self, run_id: str, metrics: list[Metric]) -> None:
        self._client.log_batch(run_id, metrics=metrics)
        steps = self._memory.logged.setdefault(run_id, {})
        for metric in metrics:
            steps[metric.key] = metric.step
        self._remember()

    def _log_params(self, parent: Run | None) -> None:
        """The settings; MLflow lets none change, so a resumed run adds only those that are not there."""
        known = {} if parent is None else parent.data.params
        table = load_scenario(self._run / "settings.yaml")
        params = [Param(key, redacted(str(value))) for key, value in table.items() if key not in known]
        for first in range(0, len(params), PARAMS):
            self._client.log_batch(self._run_id(FEDERATION), params=params[first : first + PARAMS])

    def _find_runs(self) -> dict[str, Run]:
        """MLflow's runs of this federation by site; none when somebody has deleted the federation's own."""
        found = self._client.search_runs([self._experiment], f"tags.`{KEY_TAG}` = '{self._memory.key}'")
        parent = next((run for run in found if SITE_TAG not in run.data.tags), None)
        if parent is None:
            return {}
        sites = [run for run in found if run.data.tags.get(PARENT_TAG) == parent.info.run_id]
        return {FEDERATION: parent} | {run.data.tags[SITE_TAG]: run for run in sites}

    def _run_id(self, site: str) -> str:
        if site not in self._memory.runs:
            tags = {KEY_TAG: self._memory.key}
            if site != FEDERATION:
                tags |= {SITE_TAG: site, PARENT_TAG: self._run_id(FEDERATION)}
            name = site or self._run.resolve().name
            made = self._client.create_run(self._experiment, self._memory.began, tags, name)
            self._memory.runs[site] = made.info.run_id
            self._remember()
        return self._memory.runs[site]

    def _book(self) -> dict[str, Any]:
        path = self._run / "mlflow.json"
        return json.loads(path.read_text()) if path.is_file() else {"schema": SCHEMA, "servers": {}}

    def _remembered(self) -> Memory:
        entry = self._book()["servers"].get(self._server)
        if entry is not None:
            return Memory(**entry)
        return Memory(uuid.uuid4().hex, int((self._run / "settings.yaml").stat().st_mtime * 1000))

    def _remember(self) -> None:
        book = self._book()
        book["servers"][self._server] = dataclasses.asdict(self._memory)
        write_atomic(self._run / "mlflow.json", json.dumps(book, indent=1))


def experiment_id(client: MlflowClient, name: str, uri: str) -> str:
    """MLflow's id of the experiment `name`, which is made when it is missing."""
    if (found := client.get_experiment_by_name(name)) is not None:
        return str(found.experiment_id)
    try:
        return str(client.create_experiment(name, artifacts(uri)))
    except MlflowException:  # another federation made it in between
        if (found := client.get_experiment_by_name(name)) is None:
            raise
        return str(found.experiment_id)


def place_of(uri: str, experiment: str, run_id: str) -> str:
    """One line: where to look at a run."""
    if uri.startswith(("http://", "https://")):
        return f"MLflow: {redacted(uri).rstrip('/')}/#/experiments/{experiment}/runs/{run_id}"
    return f"MLflow: mlflow ui --backend-store-uri {shlex.quote(redacted(uri))}"


def _mtime(path: Path) -> int | None:
    return path.stat().st_mtime_ns if path.exists() else None
