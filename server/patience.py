"""A site out of reach is waited for; one that has gone, or has started anew, is not.

Flower's SuperLink counts a site as unavailable a minute after its last heartbeat. It then throws away what the site
was asked, and refuses its reply, so that a line that is cut for a minute could cost an hour's training. Here the
site is as offline as Flower says, but what it was asked stands for `PATIENCE` seconds more. A site that said goodbye
is given up at once, and so is one whose program started anew since it was handed the message, because it has
forgotten it.
"""

import time
from collections.abc import Mapping
from datetime import datetime
from functools import wraps
from typing import Any

from flwr.app import Message
from flwr.server.superlink.linkstate import sql_linkstate
from flwr.server.superlink.linkstate.sql_linkstate import SqlLinkState

PATIENCE = 300.0
"""Seconds that a round waits for a site beyond the minute after which it counts as offline."""


class Patience:
    """Who started when and who has gone, as far as this process has seen it; nodes by Flower's ids."""

    def __init__(self) -> None:
        self._started: dict[int, float] = {}
        self._gone: set[int] = set()

    def starts(self, node: int) -> None:
        """A site's program has introduced itself."""
        self._started[node] = time.time()
        self._gone.discard(node)

    def goes(self, node: int) -> None:
        """A site's program has said goodbye."""
        self._gone.add(node)

    def stretch(self, asked: Mapping[str, Message], online_until: Mapping[int, float]) -> dict[int, float]:
        """Until when each node counts as available for what it was asked.

        Args:
            asked: the messages, by id.
            online_until: what Flower says, by node; a time in seconds since the epoch.
        """
        longer = {node: until + PATIENCE * (node not in self._gone) for node, until in online_until.items()}
        for message in asked.values():
            node, handed_out = message.metadata.dst_node_id, message.metadata.delivered_at
            if handed_out and datetime.fromisoformat(handed_out).timestamp() < self._started.get(node, 0.0):
                longer[node] = 0.0
        return longer


def be_patient() -> None:
    """Have Flower's link state be patient from now on; it offers no setting for this, so its parts are wrapped."""
    patience = Patience()
    check = sql_linkstate.check_node_availability_for_in_message
    activate, deactivate = SqlLinkState.activate_node, SqlLinkState.deactivate_node

    @wraps(check)
    def patient(
        inquired_in_message_ids: set[str],
        found_in_message_dict: dict[str, Message],
        node_id_to_online_until: dict[int, float],
        **words: Any,
    ) -> dict[str, Message]:
        asked = {key: found_in_message_dict[key] for key in inquired_in_message_ids}
        longer = patience.stretch(asked, node_id_to_online_until)
        return check(inquired_in_message_ids, found_in_message_dict, longer, **words)

    @wraps(activate)
    def activated(self: SqlLinkState, node_id: int, *words: Any, **named: Any) -> bool:
        done = activate(self, node_id, *words, **named)
        if done:
            patience.starts(node_id)
        return done

    @wraps(deactivate)
    def deactivated(self: SqlLinkState, node_id: int) -> bool:
        patience.goes(node_id)
        return deactivate(self, node_id)

    sql_linkstate.check_node_availability_for_in_message = patient
    SqlLinkState.activate_node, SqlLinkState.deactivate_node = activated, deactivated
