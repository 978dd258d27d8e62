"""One exchange with some nodes: ask, then yield the answers as they come, until all have come or time is up."""

import time
from collections.abc import Iterator, Mapping

from flwr.app import Message
from flwr.serverapp import Grid

from protocol.messages import Task, task_contents

SHORTEST_PAUSE, LONGEST_PAUSE = 0.002, 0.25
"""Seconds between two looks for replies."""

PAUSE_SHARE = 0.003
"""Pause as a share of the time waited so far: a short round is not slowed, a long one costs few looks."""


def exchange(grid: Grid, tasks: Mapping[int, Task], deadline: float) -> Iterator[tuple[int, Message]]:
    """Send each node, by its id, its task, all at once; yield (node id, reply message) as they arrive.

    Ends when all have answered or `deadline` seconds have passed; a late answer is never looked for again.
    """
    began = time.monotonic()
    contents = zip(tasks.items(), task_contents(tasks.values()), strict=True)
    messages = [
        Message(content, node, task.kind, ttl=deadline, group_id=str(task.round))
        for (node, task), content in contents
    ]
    waiting = dict(zip(grid.push_messages(messages), tasks, strict=True))
    while waiting and (waited := time.monotonic() - began) < deadline:
        replies = list(grid.pull_messages(list(waiting)))
        for reply in replies:
            asked = reply.metadata.reply_to_message_id
            if asked in waiting:
                yield waiting.pop(asked), reply
        if not replies:
            time.sleep(min(max(PAUSE_SHARE * waited, SHORTEST_PAUSE), LONGEST_PAUSE, deadline))
