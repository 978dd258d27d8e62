import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flwr.app import Message, Metadata, RecordDict
from flwr.app.message import make_message
from flwr.common.constant import SUPERLINK_NODE_ID
from flwr.server.superlink.linkstate import sql_linkstate
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState
from flwr.supercore.object_store import ObjectStoreFactory
from flwr.superlink.federation import NoOpFederationManager

from server.patience import PATIENCE, Patience, be_patient

NODE = 7


def message(handed_out: float | None, node: int = NODE) -> Message:
    """A question to a node, handed out at a time in seconds since the epoch, or not yet."""
    one = make_message(Metadata(1, "a", SUPERLINK_NODE_ID, node, "", "1", 0.0, 600.0, "train"), RecordDict())
    if handed_out is not None:
        one.metadata.delivered_at = datetime.fromtimestamp(handed_out, UTC).isoformat()
    return one


def test_a_silent_site_is_waited_for() -> None:
    assert Patience().stretch({"a": message(1000.0)}, {NODE: 1060.0}) == {NODE: 1060.0 + PATIENCE}


def test_a_site_that_said_goodbye_is_not_until_it_comes_back() -> None:
    patience = Patience()
    patience.goes(NODE)
    assert patience.stretch({"a": message(None)}, {NODE: 1060.0}) == {NODE: 1060.0}
    patience.starts(NODE)
    assert patience.stretch({"a": message(None)}, {NODE: 1060.0}) == {NODE: 1060.0 + PATIENCE}


def test_a_site_that_started_anew_has_forgotten_what_it_was_handed_before() -> None:
    patience = Patience()
    patience.starts(NODE)
    now = time.time()
    assert patience.stretch({"a": message(now - 60)}, {NODE: now}) == {NODE: 0.0}
    assert patience.stretch({"a": message(now + 60)}, {NODE: now}) == {NODE: now + PATIENCE}


@pytest.mark.filterwarnings("ignore:No path_separator found:DeprecationWarning")  # Alembic, of Flower's settings
def test_flowers_link_state_is_patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = sql_linkstate.check_node_availability_for_in_message
    monkeypatch.setattr(sql_linkstate, "check_node_availability_for_in_message", check)  # put back at the end
    for name in ("activate_node", "deactivate_node"):
        monkeypatch.setattr(SqlLinkState, name, getattr(SqlLinkState, name))
    be_patient()
    state = SqlLinkState(str(tmp_path / "state.db"), NoOpFederationManager(), ObjectStoreFactory().store())
    state.initialize()
    node = state.create_node("aid", "owner", b"key", 30.0)
    assert state.activate_node(node, 30.0)
    asked, now = message(None, node), time.time()

    def refused(offline_for: float) -> set[str]:
        check = sql_linkstate.check_node_availability_for_in_message
        return set(check({"a"}, {"a": asked}, {node: now - offline_for}, current_time=now))

    assert refused(10) == set()
    assert refused(PATIENCE + 10) == {"a"}
    assert state.deactivate_node(node)
    assert refused(10) == {"a"}
