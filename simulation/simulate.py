"""`fedurwkv simulate`: from a scenario to a finished run on this machine."""

import dataclasses
import json
import shlex
import shutil
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from rich.console import Console

from protocol.atomic import write_atomic
from protocol.errors import DataError, FedURWKVError, RunError, SettingsError, StoppedError
from protocol.lock import hold
from protocol.settings import Table, Value, choose, dump, load_scenario, parse_assignment, resolve, section
from server import tracking
from server.app import check_same_run
from server.journal import holds_checkpoint, read_state
from server.progress import watch
from server.summary import short, show
from server.tracking import TrackingSettings
from simulation.attacks import AttackSettings, attackers, check_attack, flip_labels
from simulation.engines import ENGINES, run_local, run_ray, threads_a_site
from simulation.overlays import ReportSettings, make_overlays
from simulation.report import write_report
from simulation.settings import check_settings
from simulation.sites import DataSettings, are_public, make_sites

TRACKING_SECONDS = 90.0
"""How long the end of a run waits for MLflow to catch up."""


def simulate(
    scenario: Path | None, engine: str, sets: list[str], out: Path | None, resume: bool, console: Console
) -> Path:
    """Simulate a federation and leave its run's folder.

    Args:
        scenario: YAML file of differences on the default settings; None: the defaults.
        engine: "local" or "ray".
        sets: `KEY=VALUE` differences that beat the scenario.
        out: the run's folder; None: `runs/` and a name from scenario and time.
        resume: go on with the run in `out`, with its own settings.

    Returns:
        The run's folder.

    Raises:
        FedURWKVError: the settings, the data or the folder are wrong, or a round failed.
    """
    choose("--engine", engine, list(ENGINES))
    run, table = _opened(scenario, sets, out, resume)
    settings = check_settings(table)
    attack = check_attack(table, engine)
    fresh = not run.exists()
    run.mkdir(parents=True, exist_ok=True)
    with hold(run / "lock", f"another process is running in {run}"):
        _check_folder(run, table, resume)
        write_atomic(run / "settings.yaml", dump(table))
        console.print(f"run {short(run)}", highlight=False, markup=False, soft_wrap=True)
        try:
            with console.status("making the sites"):
                sites = _sites(settings, int(table["seed"]), run, fresh)
                hostile = attackers(attack, [site.name for site in sites], int(table["seed"]))
                seen = flip_labels(sites, hostile, table, run / "sites-attacked") if attack.on_data else sites
            with tracking.start(run, section(table, "tracking", TrackingSettings)) as tracker:
                if not (run / "result.json").is_file():
                    _federate(run, table, seen, engine, resume, console)
                if hostile:
                    _name_attackers(run, attack, hostile)
                with console.status("drawing overlays and the report"):
                    _draw(run, table, sites)
                with console.status("MLflow catches up"):
                    tracked = tracker.finish(TRACKING_SECONDS)
        except KeyboardInterrupt:
            raise StoppedError(f"stopped; every finished round is kept; go on with: {resume_command(run)}") from None
    show(run, console, tracked)
    return run


def _sites(settings: DataSettings, seed: int, run: Path, fresh: bool) -> list[Path]:
    """The site folders; a fresh run whose data is refused leaves no folder."""
    try:
        return make_sites(settings, seed, run / "sites")
    except FedURWKVError:
        if fresh:
            shutil.rmtree(run)
        raise


def _federate(run: Path, table: Table, sites: list[Path], engine: str, resume: bool, console: Console) -> None:
    """Run the federation over the site folders and print its rounds."""
    where: dict[str, Value] = {
        "run.engine": engine,
        "run.out": str(run),
        "run.sites": str(sites[0].parent),
        "run.resume": resume,
        "federation.sites": len(sites),
        "train.threads": threads_a_site(table, len(sites)),
    }
    (run / "status.json").unlink(missing_ok=True)
    rounds = int(table["federation.rounds"])
    run_engine = run_local if engine == "local" else run_ray
    run_engine({**table, **where}, len(sites), partial(watch, run, rounds, console))


def _name_attackers(run: Path, attack: AttackSettings, hostile: list[str]) -> None:
    """Say in result.json who attacked; the server does not know."""
    result = json.loads((run / "result.json").read_text())
    told = {"attack": {**dataclasses.asdict(attack), "sites": hostile}}
    write_atomic(run / "result.json", json.dumps(result | told, indent=1))


def _draw(run: Path, table: Table, sites: list[Path]) -> None:
    """Overlays, where the pictures may be shown, and the report."""
    public = are_public(section(table, "data", DataSettings))
    if section(table, "report", ReportSettings).allow(public):
        make_overlays(run, sites, table)
    write_report(run)


def _opened(scenario: Path | None, sets: list[str], out: Path | None, resume: bool) -> tuple[Path, Table]:
    """The run's folder and its complete settings; nothing is written yet."""
    differences: Mapping[str, Value] = load_scenario(scenario) if scenario else {}
    assignments = dict(parse_assignment(text) for text in sets)
    if resume:
        if out is None:
            raise SettingsError("--resume needs the run's folder: --out runs/NAME")
        if not (out / "settings.yaml").is_file():
            raise RunError(f"{out} holds no run to go on with; start it without --resume")
        table = resolve(load_scenario(out / "settings.yaml"), differences, assignments)
    else:
        table = resolve(differences, assignments)
        data = Path(str(table["data.root"])).expanduser().resolve().name if table["data.root"] else "phantoms"
        out = out or Path("runs") / f"{scenario.stem if scenario else data}-{time.strftime('%Y%m%d-%H%M%S')}"
    if table["data.root"]:
        root = Path(str(table["data.root"])).expanduser().resolve()
        if not root.is_dir():
            raise DataError(f"data.root = {root} is no folder: name one with sites, images or data sets")
        table["data.root"] = str(root)
    if table["model.start"]:
        table["model.start"] = str(Path(str(table["model.start"])).expanduser().resolve())
    return out.resolve(), table


def _check_folder(run: Path, table: Table, resume: bool) -> None:
    """RunError when the folder holds a run that this one would spoil."""
    if not holds_checkpoint(run):
        return
    if not resume:
        raise RunError(f"{short(run)} already holds a run; go on with it by --resume, or choose another --out")
    check_same_run(read_state(run)["settings"], table, run)


def resume_command(run: Path) -> str:
    """The words that go on with an interrupted run."""
    return f"fedurwkv simulate --resume --out {shlex.quote(short(run))}"
