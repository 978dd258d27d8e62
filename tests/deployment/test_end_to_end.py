"""The real thing on the loopback address: SuperLink, SuperNodes, trainers, TLS, keys, by the command line alone."""

import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from flwr.proto.message_pb2 import (
    ConfirmMessageReceivedRequest,
    ConfirmMessageReceivedResponse,
    PullObjectRequest,
)
from flwr.proto.node_pb2 import Node
from flwr.proto.run_pb2 import GetRunRequest
from rich.console import Console
from safetensors.numpy import load_file

from client.connection import fleet_client
from client.hospital import read_hospital
from protocol.keys import public_key_of, read_private_key
from server.journal import holds_checkpoint, read_state
from server.status import read_status
from server.study import read_study
from server.study_run import find_run, run_id
from server.superlink import Control
from simulation.simulate import simulate
from tests.client.hospitals import short_folder
from tests.client.phantoms import SMALL, sets_of, small, small_sites
from tests.deployment.federation import Deployment, fedurwkv, left_over, running
from tests.waiting import wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STUDY = SMALL | {"data.sites": 3, "federation.rounds": 5, "federation.deadline": 120}


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    with short_folder() as folder:
        yield Deployment(folder)
        assert left_over(folder) == []


def weights(run: Path) -> dict[str, bytes]:
    return {
        f"{file}/{name}": array.tobytes()
        for file in ("last", "model")
        for name, array in load_file(run / f"{file}.safetensors").items()
    }


def test_five_rounds_over_tls_give_the_local_engines_weights_bit_for_bit(deployment: Deployment) -> None:
    sites = small_sites(deployment.folder, small(data_sites=3))
    deployment.init()
    hospitals = [deployment.hospital(site) for site in sites]
    with deployment.coordinator() as coordinator, deployment.sites(hospitals):
        printed = fedurwkv("coordinator", "run", deployment.study, *sets_of(STUDY), seconds=600)
        status = fedurwkv("coordinator", "status", deployment.study)
        assert fedurwkv("site", "status", hospitals[0]).count("took ") == 5
        assert coordinator.end() == 0
    (run,) = (deployment.study / "runs").iterdir()
    rounds = json.loads((run / "result.json").read_text())["rounds"]
    assert [record["failed"] for record in rounds] == [{}] * 5
    assert "global Dice" in printed
    assert "finished:completed, 5 of 5 rounds" in status
    assert all(f"site {site.name}: connected" in status for site in sites)

    local = deployment.folder / "local"
    assignments = [f"{key}={value}" for key, value in STUDY.items()]
    simulate(None, "local", [*assignments, f"data.root={sites[0].parent}"], local, False, Console(quiet=True))
    deployed, expected = weights(run), weights(local)
    assert deployed.keys() == expected.keys()
    assert [name for name in expected if deployed[name] != expected[name]] == []


def test_a_site_that_stops_in_the_middle_of_a_round_leaves_nothing_and_comes_back(deployment: Deployment) -> None:
    """The run has more rounds than are waited for: how many pass while the site is away depends on the machine."""
    sites = small_sites(deployment.folder, small())
    deployment.init()
    steady, leaving = (deployment.hospital(site) for site in sites)
    name = sites[1].name
    study = SMALL | {
        "federation.rounds": 1000,
        "federation.quorum": 1,
        "federation.deadline": 150,
        "train.epochs": 60,
    }
    log = deployment.folder / "run.log"
    with deployment.coordinator(), deployment.sites([steady]), contextlib.ExitStack() as stack:
        with deployment.sites([leaving]) as (site,):
            run = stack.enter_context(running(log, "coordinator", "run", deployment.study, *sets_of(study)))
            wait(lambda: name in waited_for(deployment, "train"), 120, log.read_text)
            began = time.monotonic()
            assert site.end() == 0
            assert time.monotonic() - began < 30
            assert left_over(leaving) == []
        wait(lambda: any(name in record["failed"] for record in history_of(deployment)), 120, log.read_text)
        stack.enter_context(deployment.sites([leaving]))
        back = len(history_of(deployment)) + 2  # the round that is under way may have found it away
        wait(lambda: len(history_of(deployment)) >= back, 300, log.read_text)
        fedurwkv("coordinator", "stop", deployment.study)
        assert run.process.wait(120) == 1
    record = history_of(deployment)[back - 1]
    assert record["failed"] == {}
    assert record["sites"][name]["loss"] is not None


def history_of(deployment: Deployment) -> list[dict[str, Any]]:
    """The records of the rounds that the study's only run has finished."""
    for folder in (deployment.study / "runs").glob("*"):
        if holds_checkpoint(folder):
            history: list[dict[str, Any]] = read_state(folder)["history"]
            return history
    return []


def waited_for(deployment: Deployment, phase: str) -> list[str]:
    """The sites that the study's only run waits for in a phase."""
    words = status_of(deployment)
    return words["waiting"] if words.get("phase") == phase else []


def status_of(deployment: Deployment) -> dict[str, Any]:
    """What the study's only run is doing; empty before there is one."""
    for folder in (deployment.study / "runs").glob("*"):
        return read_status(folder)
    return {}


def assert_receives_no_more(deployment: Deployment, hospital: Path) -> None:
    """What a site asks while it receives a message of the study's only run ends as `server.endings` says."""
    study, site = read_study(deployment.study), read_hospital(hospital)
    key = read_private_key(site.key)
    with Control(study.local_address, study.ca) as control:
        (node,) = (Node(node_id=node.id) for node in control.nodes() if node.key.line == public_key_of(key).line)
    run = run_id(find_run(study, None))
    with fleet_client(site, key) as client:
        assert not client.PullObject(PullObjectRequest(node=node, run_id=run, object_id="a" * 64)).object_found
        received = ConfirmMessageReceivedRequest(node=node, run_id=run, message_object_id="a" * 64)
        assert client.ConfirmMessageReceived(received) == ConfirmMessageReceivedResponse()
        with pytest.raises(httpx.HTTPStatusError):
            client.GetRun(GetRunRequest(node=node, run_id=run))


def test_a_run_that_is_stopped_goes_on_and_ends_with_the_same_weights(deployment: Deployment) -> None:
    sites = small_sites(deployment.folder, small())
    deployment.init()
    hospitals = [deployment.hospital(site) for site in sites]
    study = SMALL | {"federation.rounds": 20, "federation.deadline": 120, "train.epochs": 5}
    log = deployment.folder / "run.log"
    with deployment.coordinator(), deployment.sites(hospitals):
        with running(log, "coordinator", "run", deployment.study, *sets_of(study)) as run:
            wait(lambda: (status_of(deployment).get("round") or 0) >= 2, 200, lambda: log.read_text())
            assert "is still running" in fedurwkv("coordinator", "resume", deployment.study, code=1)
            assert "go on with it: fedurwkv coordinator resume" in fedurwkv("coordinator", "stop", deployment.study)
            assert run.process.wait(120) == 1
        assert "go on with it: fedurwkv coordinator resume" in log.read_text()
        assert_receives_no_more(deployment, hospitals[0])
        printed = fedurwkv("coordinator", "resume", deployment.study)
        assert "going on after round" in printed
        assert "is done" in fedurwkv("coordinator", "resume", deployment.study, code=1)
    (folder,) = (deployment.study / "runs").iterdir()
    local = deployment.folder / "local"
    assignments = [f"{key}={value}" for key, value in study.items()]
    simulate(None, "local", [*assignments, f"data.root={sites[0].parent}"], local, False, Console(quiet=True))
    assert weights(folder) == weights(local)


def test_a_site_in_training_learns_that_its_run_was_stopped_and_is_free_for_the_next(deployment: Deployment) -> None:
    """A round is to take minutes; seconds after the stop the sites have given theirs up, and take up the next run."""
    sites = small_sites(deployment.folder, small())
    deployment.init()
    hospitals = [deployment.hospital(site) for site in sites]
    long = SMALL | {"federation.rounds": 2, "federation.deadline": 800, "train.epochs": 2000}
    short = SMALL | {"federation.rounds": 1, "federation.deadline": 120}
    log = deployment.folder / "run.log"
    told, given_up = "the run is over: what is being computed for it is given up", "its task is given up"
    with deployment.coordinator(), deployment.sites(hospitals) as running_sites:
        command = ("coordinator", "run", deployment.study, *sets_of(long))
        with running(log, *command) as run:
            wait(lambda: status_of(deployment).get("phase") == "train", 120, log.read_text)
            time.sleep(8)  # they train by now, and have asked once whether the run goes on
            assert all(told not in site.log.read_text() for site in running_sites)
            fedurwkv("coordinator", "stop", deployment.study)
            began = time.monotonic()
            for site in running_sites:
                site.wait_for(told, 15)
                site.wait_for(given_up, 15)
            assert time.monotonic() - began < 15
            assert run.process.wait(120) == 1
        began = time.monotonic()
        fedurwkv("coordinator", "run", deployment.study, *sets_of(short))
        assert time.monotonic() - began < 60
