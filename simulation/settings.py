"""Every setting of a simulation checked before anything is made, so that a wrong word costs a second, not a round."""

from client.device import PlaceSettings, find_place
from client.trainer import SiteData
from client.training import TrainSettings
from protocol.errors import SettingsError
from protocol.settings import Table, section
from protocol.strategy import make_strategy
from server.settings import FederationSettings
from server.tracking import TrackingSettings
from simulation.overlays import ReportSettings
from simulation.sites import DataSettings
from urwkv import Architecture


def check_settings(table: Table) -> DataSettings:
    """The `data.*` settings, once every section of the complete table has been read.

    Raises:
        SettingsError: a setting is mistyped, out of range, or does not combine with another.
    """
    for prefix, cls in (
        ("model", Architecture),
        ("federation", FederationSettings),
        ("train", TrainSettings),
        ("tracking", TrackingSettings),
        ("report", ReportSettings),
        ("data", SiteData),
    ):
        section(table, prefix, cls)
    find_place(section(table, "train", PlaceSettings))
    make_strategy(table)
    if table["privacy.epsilon"]:
        raise SettingsError(
            f"privacy.epsilon = {table['privacy.epsilon']!r}: this version trains without differential privacy;"
            " leave it at 0"
        )
    return section(table, "data", DataSettings)
