"""The real thing across network namespaces: a far hospital on a slow line, and one whose link is cut for a minute."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from protocol.packing import Schema
from server.status import read_status
from simulation.simulate import simulate
from tests.client.hospitals import short_folder
from tests.client.phantoms import SMALL, sets_of, small, small_sites
from tests.deployment.federation import Deployment, fedurwkv, left_over, running
from tests.deployment.network import COORDINATOR, Network, NotPermittedError, network
from tests.waiting import wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

NEAR, FAR, CUT = 1, 2, 3
ONE_WAY, RATE = 0.1, 1e6
"""Of the slow line: seconds, and bits a second."""

CUT_SECONDS = 60
ROUNDS = 3

STUDY = SMALL | {
    "data.sites": 3,
    "federation.rounds": ROUNDS,
    "federation.deadline": 300,
    "train.epochs": 40,  # long enough for the cut to come while the site trains
}


@pytest.fixture
def lines() -> Iterator[Network]:
    """Three hospitals, each at the end of a link of its own."""
    try:
        with network() as one:
            one.add_hospital()
            one.add_hospital(one_way=ONE_WAY, rate=f"{RATE:.0f}bit")
            one.add_hospital()
            yield one
    except NotPermittedError as error:
        pytest.skip(f"network namespaces are not permitted here: {error}")


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with short_folder() as folder:
        yield Deployment(folder)
        assert left_over(folder) == []


def test_a_slow_line_and_a_link_cut_for_a_minute_change_no_bit(deployment: Deployment, lines: Network) -> None:
    sites = small_sites(deployment.folder, small(data_sites=3))
    deployment.init(COORDINATOR, "0.0.0.0")
    hospitals = [deployment.hospital(site, host=COORDINATOR) for site in sites]
    where = [lines.hospital(number) for number in (NEAR, FAR, CUT)]
    log, cut = deployment.folder / "run.log", sites[CUT - 1].name
    with deployment.coordinator(lines.coordinator), deployment.sites(hospitals, where):
        assert lines.round_trip(NEAR, deployment.port) < 2 * ONE_WAY <= lines.round_trip(FAR, deployment.port)
        command = ("coordinator", "run", deployment.study, *sets_of(STUDY))
        with running(log, *command, prefix=lines.coordinator) as run:
            wait(lambda: is_asked(deployment, 2, cut), 300, log.read_text)
            time.sleep(1)  # the model is there by now
            lines.cut(CUT)
            assert is_asked(deployment, 2, cut), "the site had answered before its link was cut"
            time.sleep(CUT_SECONDS)
            assert is_asked(deployment, 2, cut), "the round did not wait for the site"
            lines.mend(CUT)
            assert run.process.wait(400) == 0, log.read_text()
        assert f"site {cut}: connected" in fedurwkv(
            "coordinator", "status", deployment.study, prefix=lines.coordinator
        )
    (folder,) = (deployment.study / "runs").iterdir()
    rounds = json.loads((folder / "result.json").read_text())["rounds"]
    assert [record["round"] for record in rounds] == [1, 2, 3]
    assert [record["failed"] for record in rounds] == [{}] * ROUNDS
    assert [sorted(record["sites"]) for record in rounds] == [sorted(site.name for site in sites)] * ROUNDS
    model = Schema.like(load_file(folder / "last.safetensors")).nbytes
    assert [record["bytes_up"] for record in rounds] == [len(sites) * model] * ROUNDS  # each counted once
    assert all(record["seconds"] > 2 * 8 * model / RATE for record in rounds)  # the line is as slow as it says
    assert rounds[1]["seconds"] > CUT_SECONDS

    local = deployment.folder / "local"
    assignments = [f"{key}={value}" for key, value in STUDY.items()]
    simulate(None, "local", [*assignments, f"data.root={sites[0].parent}"], local, False, Console(quiet=True))
    assert arrays(folder) == arrays(local)


def test_a_site_lost_while_it_sends_holds_the_round_up_until_its_deadline(
    deployment: Deployment, lines: Network
) -> None:
    sites = small_sites(deployment.folder, small(data_sites=3))
    deployment.init(COORDINATOR, "0.0.0.0")
    hospitals = [deployment.hospital(site, host=COORDINATOR) for site in sites]
    where = [lines.hospital(number) for number in (NEAR, FAR, CUT)]
    deadline, lost = 90, sites[FAR - 1].name
    study = STUDY | {"federation.rounds": 1, "federation.deadline": deadline, "train.epochs": 1}
    log, sending = deployment.folder / "run.log", hospitals[FAR - 1] / "state" / "supernode.log"
    with deployment.coordinator(lines.coordinator), deployment.sites(hospitals, where):
        command = ("coordinator", "run", deployment.study, *sets_of(study))
        with running(log, *command, prefix=lines.coordinator) as run:
            wait(lambda: "Sending: train" in sending.read_text(), 120, sending.read_text)
            time.sleep(4)  # of some fifteen seconds
            assert "Sent successfully" not in sending.read_text().partition("Sending: train")[2]
            lines.cut(FAR)
            wait(lambda: not is_asked(deployment, 1, lost), deadline + 30, log.read_text)
            lines.mend(FAR)
            assert run.process.wait(400) == 0, log.read_text()
    (folder,) = (deployment.study / "runs").iterdir()
    (record,) = json.loads((folder / "result.json").read_text())["rounds"]
    assert record["failed"] == {lost: f"no reply within the deadline of {deadline} s"}
    assert deadline <= record["seconds"] < deadline + 5
    assert sorted(name for name, site in record["sites"].items() if site["loss"] is not None) == sorted(
        {site.name for site in sites} - {lost}
    )


def is_asked(deployment: Deployment, number: int, name: str) -> bool:
    """Whether the study's only run waits for a site in the training of a round."""
    for folder in (deployment.study / "runs").glob("*"):
        words = read_status(folder)
        return (words.get("phase"), words.get("round")) == ("train", number) and name in words["waiting"]
    return False


def arrays(run: Path) -> dict[str, bytes]:
    """The last model of a run, by array."""
    return {name: array.tobytes() for name, array in load_file(run / "last.safetensors").items()}
