"""Who takes part, and the complete settings of each of their runs.

All runs of a seed share sites, splits, initial weights, rounds, local epochs and batches. A site alone trains as
many rounds and epochs on its own images as it would in the federation, and the pooled site on all of them; both make
their optimizer anew each round, as sites in a federation do, so that no budget is larger than another.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from protocol.errors import SettingsError
from protocol.settings import Table, resolve, section
from protocol.strategy import make_strategy
from server.mlflow_uri import address
from server.tracking import OFF
from simulation.attacks import check_attack
from simulation.compare.folders import Shared
from simulation.compare.words import CENTRAL, LOCAL, OWN, Plan, Trial
from simulation.settings import check_settings
from simulation.sites import DataSettings, are_public

ALONE: Table = {"federation.strategy": "fedavg", "federation.quorum": 1, "federation.fraction": 1.0}
"""How a baseline's single site is run: averaging one model changes nothing."""

AS_THEY_ARE: Table = {
    "data.datasets": "auto",
    "data.partition": "auto",
    "data.appearance": 0.0,
    "data.split": "safe",
}
"""Site folders that were made before are used as they are."""


@dataclass(frozen=True)
class Job:
    """One run: its folder's name, whose it is, its seed, its site if it has just one, and its settings.

    Attributes:
        sites: the folder of sites to be linked into the run's; None where `data.root` names it.
        after: the name of a job before it in the list that must be over first; empty: of none.
        program: the file of the program that runs it in the place of `fedurwkv.py`, in a process of its own.
    """

    name: str
    contestant: str
    seed: int
    site: str
    table: Table
    sites: Path | None
    after: str = ""
    program: Path | None = None


def jobs_of(plan: Plan, contestant: str, shared: Shared, trial: Trial, folder: Path) -> list[Job]:
    """The runs of one contestant on one seed: one, or of the local baseline one a site.

    Args:
        trial: the values of the tuned settings.
        folder: the comparison's folder.
    """
    table = settings_of(plan, contestant, shared.seed, trial, folder)
    suffix = "".join(f"-{key}={value}" for key, value in trial.items()) + f"-seed{shared.seed}"
    if contestant == LOCAL:
        return [
            Job(f"{LOCAL}-{name}{suffix}", LOCAL, shared.seed, name, _in(root, table), None)
            for name, root in shared.alone.items()
        ]
    if contestant == CENTRAL:
        return [Job(CENTRAL + suffix, CENTRAL, shared.seed, "", _in(shared.pooled, table), None)]
    sites = None if shared.ready else shared.sites[0].parent
    return [Job(contestant + suffix, contestant, shared.seed, "", table, sites)]


def settings_of(plan: Plan, contestant: str, seed: int, trial: Trial, folder: Path) -> Table:
    """The complete settings of one contestant with one seed."""
    uri = str(plan.table["tracking.uri"])
    common: Table = {"seed": seed, "tracking.uri": uri if uri == OFF else address(folder, uri)}
    own = plan.own.get(contestant, {})
    how = ALONE if contestant in (LOCAL, CENTRAL) else {"federation.strategy": contestant}
    return resolve(plan.table, common, own, trial, how)


def check_jobs(plan: Plan, jobs: Sequence[Job], sites: Mapping[int, int]) -> None:
    """Every run's settings, before any of them starts.

    Args:
        sites: how many sites there are, by seed; empty before there are any.

    Raises:
        SettingsError: a run's settings are wrong or do not combine; the message names the contestant.
    """
    if plan.table["attack.kind"] != "none" and plan.baselines:
        raise SettingsError(
            f"attack.kind = {plan.table['attack.kind']!r}: an attack is on a federation; leave out --baselines"
        )
    for job in jobs:
        count = 1 if job.contestant in (LOCAL, CENTRAL) else sites.get(job.seed, 0)
        try:
            check_settings(job.table)
            check_attack(job.table, plan.engine)
            make_strategy({**job.table, "federation.sites": count})
        except SettingsError as error:
            alone = any(str(error).startswith(key) for key in OWN)
            cure = f"; for {job.contestant} alone: --for {job.contestant}:KEY=VALUE,..." if alone else ""
            raise SettingsError(f"{job.contestant}: {error}{cure}") from error


def _in(root: Path, table: Table) -> Table:
    """The settings of a run whose sites lie below `root`, with pictures that may be shown where they might before."""
    public = are_public(section(table, "data", DataSettings))
    shown: Table = {"report.overlays": "all"} if public and table["report.overlays"] == "public" else {}
    return {**table, **AS_THEY_ARE, **shown, "data.root": str(root)}
