"""Who takes part: the sites by name, their nodes and their numbers of images."""

import time
from dataclasses import dataclass

import numpy as np
from flwr.app import Message
from flwr.common.constant import ErrorCode
from flwr.serverapp import Grid

from protocol.errors import RoundError, RunError, SettingsError
from protocol.messages import DESCRIBE, Task, read_reply
from protocol.seeds import seed_of
from protocol.splits import SPLITS
from server.exchange import exchange
from server.identity import Enrolment, IdentityError
from server.journal import State
from server.settings import FederationSettings
from strategies import Strategy
from strategies.local import VAL_LOSS, VAL_LOSS_AFTER

LONGEST_NAME = 100

MOST_IMAGES = 2**28
"""Most images of a site's split; also what keeps the aggregate's sums exact (`strategies.mean`)."""

JOIN_PAUSE = 0.5
"""Seconds between two looks for sites that have not joined yet."""


@dataclass(frozen=True)
class Member:
    """One site: its name, Flower's id of its node, and its images in each split."""

    name: str
    node: int
    images: dict[str, int]


Roster = dict[str, Member]


def call_roll(grid: Grid, expected: int, deadline: float, enrolment: Enrolment | None = None) -> Roster:
    """Ask every node who it is until `expected` sites have answered.

    A site that says another name than its enrolled one is not waited for: the study goes on without it. One that goes
    away before it has answered is asked again when it is back.

    Args:
        expected: sites to wait for, at least 1.
        deadline: seconds to wait for them.
        enrolment: who may bear which name; None: sites are taken at their word.

    Returns:
        The sites that answered, sorted by name.

    Raises:
        RoundError: too few sites within the deadline (each refusal with its reason), or one name twice.
    """
    began = time.monotonic()
    members: dict[str, Member] = {}
    refused: list[str] = []
    asked: set[int] = set()
    impostors: list[str] = []
    spare = max(0, len(enrolment) - expected) if enrolment else 0  # may be missing before fewer are waited for
    while True:
        new = [node for node in grid.get_nodes() if node.node_id not in asked]
        asked.update(node.node_id for node in new)
        names = enrolment.names(new) if enrolment else {node.node_id: "" for node in new}
        left = max(0.0, deadline - (time.monotonic() - began))
        for node, message in exchange(grid, {n: Task(DESCRIBE, site=name) for n, name in names.items()}, left):
            if message.has_error() and message.error.code == ErrorCode.NODE_UNAVAILABLE:
                asked.remove(node)  # it has gone, or started anew and forgotten the question
                continue
            try:
                member = _member(message, node)
                if enrolment:
                    enrolment.check(names[node], member.name)
            except IdentityError as error:
                impostors.append(str(error))
            except ValueError as error:
                refused.append(str(error))
            else:
                if member.name in members:
                    raise RoundError(f"two sites call themselves {member.name!r}; every site needs a name of its own")
                members[member.name] = member
            if members and len(members) == expected - max(0, len(impostors) - spare):
                return dict(sorted(members.items()))
        gone = len(refused) + max(0, len(impostors) - spare)
        if len(members) + gone >= expected or time.monotonic() - began >= deadline:
            reasons = "".join(f"; one refused: {reason}" for reason in [*impostors, *refused])
            seconds = time.monotonic() - began
            raise RoundError(f"{len(members)} of {expected} sites joined in {seconds:.0f} s{reasons}")
        time.sleep(JOIN_PAUSE)


def _member(message: Message, node: int) -> Member:
    """The site that a reply to `query.describe` tells of; ValueError when it cannot be true."""
    if message.has_error():
        raise ValueError(message.error.reason or "no reason given")
    reply = read_reply(message.content)
    if not 1 <= len(reply.site) <= LONGEST_NAME or not reply.site.isprintable():
        raise ValueError(f"a site's name must have 1 to {LONGEST_NAME} printable characters, not {reply.site[:50]!r}")
    images = {}
    for split in SPLITS:
        unsaid = -1.0 if split == "train" else 0.0  # of val and test a site may withhold it
        count = reply.scalars.get(f"{split}.images", unsaid)
        if not (0 <= count <= MOST_IMAGES and count == int(count)):
            raise ValueError(f"site {reply.site}: {split}.images = {count} is no number of images")
        images[split] = int(count)
    if not images["train"]:
        raise ValueError(f"site {reply.site} has no training images")
    return Member(reply.site, node, images)


def check_roster(roster: Roster, state: State, settings: FederationSettings, strategy: Strategy) -> None:
    """What would fail after hours fails here: splits without images, an unreachable quorum, other sites than before.

    The sites that are to stay are noted in the state.

    Raises:
        RunError: a resumed run has other sites, or they have other images.
        RoundError: nothing could be scored, or a site could not report what the strategy needs.
        SettingsError: a round asks fewer sites than make one.
    """
    sites = [{"name": name, **member.images} for name, member in roster.items()]
    if state.sites and sites != state.sites:
        raise RunError("the sites or their images are others than when the run began; resume it with the same")
    for split, share in (("val", "data.val"), ("test", "data.test")):
        if not any(member.images[split] for member in roster.values()):
            raise RoundError(f"no site has {split} images: raise {share}, or name some in a site.csv")
    if {VAL_LOSS, VAL_LOSS_AFTER} & set(strategy.reports):
        for name in (name for name, member in roster.items() if not member.images["val"]):
            raise RoundError(
                f"site {name} has no val images, whose loss {state.settings['federation.strategy']} weighs it by:"
                " raise data.val, name some in its site.csv, or choose another federation.strategy"
            )
    asked = len(sample(roster, settings.fraction, int(state.settings["seed"]), 1))
    if settings.needed(asked) > asked:
        raise SettingsError(f"federation.quorum = {settings.quorum} can't be met: a round asks {asked} sites")
    state.sites = sites


def sample(roster: Roster, fraction: float, seed: int, round_number: int) -> Roster:
    """The sites asked in a round: a seeded draw by name, the same however nodes are numbered or ordered."""
    names = sorted(roster)
    count = max(1, round(fraction * len(names)))
    rng = np.random.default_rng(seed_of(seed, "sample", round_number))
    chosen = rng.choice(len(names), size=count, replace=False)
    return {names[i]: roster[names[i]] for i in sorted(chosen)}
