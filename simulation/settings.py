"""Every setting of a simulation checked before anything is made, so that a wrong word costs a second, not a round."""

from client.device import PlaceSettings, find_place
from client.privacy.plan import check_private
from client.privacy.settings import PrivacySettings
from client.trainer import SiteData
from client.training import TrainSettings
from protocol.codec import TransferSettings
from protocol.errors import SettingsError
from protocol.settings import Table, Value, defaults, section
from protocol.strategy import make_strategy
from server.app import initial_model
from server.settings import FederationSettings
from server.tracking import TrackingSettings
from simulation.attacks import AttackSettings
from simulation.overlays import ReportSettings
from simulation.sites import DataSettings
from urwkv import Architecture

OF_THE_COMMAND = {
    "run.engine": "--engine",
    "run.out": "--out",
    "run.resume": "--resume",
    "run.sites": "data.root",
    "federation.sites": "data.sites",
}
"""Settings that the command makes of its own words, and which words those are."""


def check_settings(table: Table) -> DataSettings:
    """The `data.*` settings, once every section of the complete table has been read.

    Raises:
        SettingsError: a setting is mistyped, out of range, or does not combine with another.
    """
    for prefix, cls in (
        ("model", Architecture),
        ("federation", FederationSettings),
        ("train", TrainSettings),
        ("transfer", TransferSettings),
        ("tracking", TrackingSettings),
        ("report", ReportSettings),
        ("data", SiteData),
        ("attack", AttackSettings),
    ):
        section(table, prefix, cls)
    _require(0 <= int(table["seed"]) < 2**63, "seed", table["seed"], "between 0 and 2^63 - 1")
    _require(
        table["model.in_channels"] in (1, 3),
        "model.in_channels",
        table["model.in_channels"],
        "1 (grey) or 3 (colour)",
    )
    find_place(section(table, "train", PlaceSettings))
    if table["model.start"]:
        initial_model(table)
    strategy = make_strategy(table)
    privacy = section(table, "privacy", PrivacySettings)
    if privacy.asked:
        check_private(privacy, strategy, str(table["model.norm"]))
    for key, words in OF_THE_COMMAND.items():
        if table[key] != defaults()[key]:
            raise SettingsError(f"{key} = {table[key]!r}: a simulation sets it itself; use {words}")
    return section(table, "data", DataSettings)


def _require(condition: bool, key: str, value: Value, allowed: str) -> None:
    if not condition:
        raise SettingsError(f"{key} = {value!r} must be {allowed}")
