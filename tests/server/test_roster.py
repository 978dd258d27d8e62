import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message
from flwr.common.constant import ErrorCode
from flwr.proto.node_pb2 import NodeInfo

from protocol.errors import RoundError, RunError, SettingsError
from protocol.keys import PublicKey, make_key_pair
from protocol.messages import DESCRIBE, Reply, Task, read_task, reply_content
from server.identity import Enrolment
from server.roster import Member, Roster, call_roll, sample
from server.study import Study, make_study
from simulation.local_grid import LocalGrid
from tests.server.clients import client_app, federate, honest, settings


def roster(names: list[str]) -> dict[str, Member]:
    return {name: Member(name, node, {}) for node, name in enumerate(names)}


def test_a_sample_depends_on_names_not_on_nodes_or_their_order() -> None:
    names = [f"s{i}" for i in range(10)]
    drawn = [list(sample(roster(names), 0.3, 7, r)) for r in range(20)]
    assert drawn == [list(sample(roster(names[::-1]), 0.3, 7, r)) for r in range(20)]
    assert all(len(set(d)) == 3 for d in drawn)
    assert len({tuple(d) for d in drawn}) > 5
    assert drawn != [list(sample(roster(names), 0.3, 8, r)) for r in range(20)]


def test_at_least_one_site_is_asked_and_all_at_fraction_one() -> None:
    assert len(sample(roster(["a", "b", "c"]), 0.01, 0, 1)) == 1
    assert list(sample(roster(["b", "a"]), 1.0, 0, 1)) == ["a", "b"]


def describing(spoil: Callable[[Reply], Reply | Error | None]) -> Callable[[Message, Context], Message]:
    """A client app in which site 1 spoils its answer to `query.describe`; None: it says nothing for long."""

    def app(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        if index != 1 or message.metadata.message_type != DESCRIBE:
            return client_app({})(message, context)
        answer = spoil(honest(index, Task(DESCRIBE)))
        if answer is None:
            time.sleep(3)
            answer = honest(index, Task(DESCRIBE))
        content = answer if isinstance(answer, Error) else reply_content(answer)
        return Message(content, reply_to=message)

    return app


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda r: replace(r, scalars={}), "train.images = -1.0 is no number of images"),
        (lambda r: replace(r, scalars={**r.scalars, "train.images": 0.0}), "site-1 has no training images"),
        (lambda r: replace(r, scalars={**r.scalars, "train.images": float("inf")}), "train.images = inf"),
        (lambda r: replace(r, scalars={**r.scalars, "val.images": 1e300}), "val.images = 1e"),
        (lambda r: replace(r, site=""), "a site's name must have 1 to 100 printable characters"),
        (lambda r: replace(r, site="a\nb"), "a site's name must have 1 to 100 printable characters"),
        (lambda r: Error(1000, "no data here"), "1 of 2 sites joined in .* s; one refused: no data here"),
    ],
)
def test_a_site_that_cannot_join_is_refused_with_its_reason(
    tmp_path: Path, spoil: Callable[[Reply], Reply | Error], says: str
) -> None:
    with pytest.raises(RoundError, match=says):
        federate(tmp_path, settings(federation_rounds=1), 2, app=describing(spoil))


def test_the_study_begins_when_the_sites_it_waits_for_have_joined(tmp_path: Path) -> None:
    table = settings(federation_rounds=1, federation_sites=1)
    began = time.monotonic()
    state = federate(tmp_path, table, 2, app=describing(lambda reply: None), expected=1)
    assert [site["name"] for site in state.sites] == ["site-0"]
    assert time.monotonic() - began < 60


def test_a_site_that_starts_anew_while_it_is_asked_is_asked_again(tmp_path: Path) -> None:
    lost = [Error(ErrorCode.NODE_UNAVAILABLE, "node_unavail")]
    state = federate(
        tmp_path, settings(federation_rounds=1), 2, app=describing(lambda reply: lost.pop() if lost else reply)
    )
    assert [site["name"] for site in state.sites] == ["site-0", "site-1"]
    assert lost == []


class Keyed(LocalGrid):
    """A local grid whose nodes prove who they are, as a SuperLink's do."""

    keys: tuple[PublicKey, ...] = ()

    def get_nodes(self) -> Iterable[NodeInfo]:
        return [NodeInfo(node_id=n, public_key=self.keys[n - 1].pem) for n in self.get_node_ids()]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", ["a"])


def roll(study: Study, said: list[str], expected: int, enrolled: list[str]) -> Roster:
    """The roll of nodes that were enrolled under some names and say others."""

    def app(message: Message, context: Context) -> Message:
        index = int(context.node_config["partition-id"])
        asked = read_task(message.metadata.message_type, message.content, {})
        assert asked.site == enrolled[index]
        reply = honest(index, asked)
        return Message(reply_content(replace(reply, site=said[index])), reply_to=message)

    keys = []
    for name in enrolled:
        keys.append(make_key_pair(study.folder / name, study.folder / f"{name}.pub", name))
        study.admit(name, study.folder / f"{name}.pub")
    grid = Keyed(app, len(said), 1, settings())
    grid.keys = tuple(keys)
    try:
        return call_roll(grid, expected, 20, Enrolment(study))
    finally:
        grid.close()


@pytest.mark.parametrize("said", [["b", "b", "c"], ["z", "b", "c"]])
def test_a_site_that_says_another_name_is_refused_and_the_others_begin(study: Study, said: list[str]) -> None:
    found = roll(study, said, 3, ["a", "b", "c"])
    assert {name: member.node for name, member in found.items()} == {"b": 2, "c": 3}
    assert f"refused a calls itself {said[0]!r}" in study.refusals.read_text()


def test_another_comes_in_the_place_of_a_refused_one(study: Study) -> None:
    assert list(roll(study, ["b", "b", "c"], 2, ["a", "b", "c"])) == ["b", "c"]


def test_where_every_site_is_refused_nothing_begins(study: Study) -> None:
    with pytest.raises(
        RoundError, match=r"0 of 2 sites joined .*one refused: a calls itself 'b'.*b calls itself 'a'"
    ):
        roll(study, ["b", "a"], 2, ["a", "b"])


def test_a_quorum_beyond_the_sites_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"federation\.quorum = 9 can't be met: a round asks 2 sites"):
        federate(tmp_path, settings(federation_quorum=9), 2)


def test_a_run_goes_on_with_the_sites_it_began_with(tmp_path: Path) -> None:
    state = federate(tmp_path, settings(federation_rounds=1), 2)
    state.settings |= {"federation.rounds": 2, "federation.sites": 3}
    with pytest.raises(RunError, match="the sites or their images are others"):
        federate(tmp_path, state.settings, 3, state=state)


def test_a_federation_without_test_images_says_so_before_the_first_round(tmp_path: Path) -> None:
    def app(message: Message, context: Context) -> Message:
        reply = client_app({})(message, context)
        if message.metadata.message_type == DESCRIBE:
            reply.content["scalars"]["test.images"] = 0.0
        return reply

    with pytest.raises(RoundError, match=r"no site has test images: raise data\.test"):
        federate(tmp_path, settings(federation_rounds=1), 2, app=app)
