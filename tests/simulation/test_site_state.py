"""What sites remember, over the real server, real trainers and their disks: kills, lost replies, other processes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flwr.app import Context, Error, Message

from client.app import app as client_app
from protocol.errors import RunError
from protocol.messages import TRAIN
from protocol.settings import Table
from server.journal import Journal, State, read_state
from simulation import engines
from simulation.engines import run_ray
from tests.client.phantoms import pretend
from tests.simulation.studies import Killed, killed_in, run, tiny, weights

Sites = Callable[[Table], list[Path]]


@pytest.mark.parametrize(
    ("name", "codec"),
    [*((name, "fp32") for name in ("scaffold", "feddyn", "ditto", "fedbn")), ("fedavg", "int8"), ("fedavg", "bf16")],
)
def test_a_run_killed_in_any_round_and_resumed_equals_one_that_was_not(
    name: str, codec: str, tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed as round 2 was written, or was about to be: then round 1 is on disk, and sites are two rounds ahead."""
    table = tiny(name, federation_rounds=3, data_sites=2, transfer_codec=codec)
    whole = weights(run(tmp_path / "whole", table, sites(table)))
    for written in (True, False):
        out = tmp_path / f"killed-{written}"
        with killed_in(2, monkeypatch, written=written):
            run(out, table, sites(table))
        assert read_state(out)["round"] == (2 if written else 1)
        newest = {path.name for path in out.glob("state/**/round-*")}
        assert "round-0003.safetensors" in newest
        assert weights(run(out, table, sites(table), resume=True)) == whole


def test_a_run_killed_before_its_first_checkpoint_starts_anew_over_what_sites_remember(
    tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny("scaffold", data_sites=2)
    whole = weights(run(tmp_path / "whole", table, sites(table)))

    def dying(journal: Journal, state: State) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Journal, "write", dying)
        with pytest.raises(Killed):
            run(tmp_path / "killed", table, sites(table))
    assert {path.name for path in tmp_path.glob("killed/state/*/*")} == {
        f"round-000{number}.safetensors" for number in (0, 1, 2)
    }
    assert weights(run(tmp_path / "killed", table, sites(table), resume=True)) == whole


@pytest.mark.parametrize("name", ["scaffold", "ditto"])
def test_a_lost_reply_moves_no_state(
    name: str, tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A site whose reply never arrives does its work for nothing: all is as if it had not been asked."""
    table = tiny(name, federation_rounds=4, federation_quorum=1, data_sites=2)

    def without(works: bool) -> Callable[[Message, Context], Message]:
        def app(message: Message, context: Context) -> Message:
            training = message.metadata.message_type == TRAIN
            number = int(message.content["task"]["round"])
            lost = training and (number, int(context.node_config["partition-id"])) in {(2, 0), (3, 1)}
            reply = client_app(message, context) if works or not lost else None
            return Message(Error(1000, "lost"), reply_to=message) if lost or reply is None else reply

        return app

    ends = {}
    for works in (True, False):
        with monkeypatch.context() as patch:
            patch.setattr(engines, "client_app", without(works))
            ends[works] = weights(run(tmp_path / f"{works}", table, sites(table)))
    assert ends[True] == ends[False]


def test_a_site_whose_state_is_gone_is_left_out_with_the_cure(
    tmp_path: Path, sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = tiny("scaffold", federation_rounds=3, federation_quorum=1, data_sites=2)
    folders = sites(table)
    run(tmp_path / "run", {**table, "federation.rounds": 3}, folders)
    (tmp_path / "run" / "result.json").unlink()
    journal = Journal(tmp_path / "run")
    state = journal.read()
    state.round, state.closed, state.history = 2, False, state.history[:2]
    journal.write(state)
    for path in (tmp_path / "run" / "state" / folders[0].name).iterdir():
        path.unlink()
    run(tmp_path / "run", table, folders, resume=True)
    failed = json.loads((tmp_path / "run" / "result.json").read_text())["rounds"][2]["failed"]
    assert list(failed) == [folders[0].name]
    assert "but the site remembers rounds 0: put its state back from a copy" in failed[folders[0].name]


def test_a_folder_for_the_state_must_be_named_where_there_is_one(sites: Sites) -> None:
    table = tiny("scaffold", data_sites=2)
    with pytest.raises(RunError, match="scaffold has a site remember its state: name a folder for it"):
        pretend(sites(table)[0], table)
    assert pretend(sites(table)[0], tiny("feddg_ga", data_sites=2)).state is None


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaffold", "ditto"])
def test_local_equals_ray_bit_for_bit(name: str, tmp_path: Path, sites: Sites) -> None:
    """On Ray a site's trainers come and go in several processes; what it remembers lies on its disk."""
    table = tiny(name, federation_rounds=3, data_sites=2)
    local = weights(run(tmp_path / "local", table, sites(table)))
    assert weights(run(tmp_path / "ray", table, sites(table), run_ray)) == local
