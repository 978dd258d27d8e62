"""A site whose courier Flower's own programs run, in process isolation: SuperNode and SuperExec."""

import json
import sys
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from client.hospital import read_hospital
from protocol.flower import environment
from tests.client.hospitals import short_folder
from tests.client.phantoms import SMALL, sets_of, small, small_sites
from tests.deployment.federation import (
    Deployment,
    Running,
    fedurwkv,
    free_port,
    left_over,
    program,
    running,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALONE = SMALL | {"data.sites": 1, "federation.quorum": 1}


def flower(log: Path, *command: object) -> AbstractContextManager[Running]:
    """A program of Flower's inside the `with`, in a home of its own."""
    path = Path(sys.executable).with_name(str(command[0]))
    return program(log, [str(path), *map(str, command[1:])], environment(log.with_suffix("")))


def test_a_run_over_a_site_in_process_isolation() -> None:
    with short_folder() as folder:
        _train(Deployment(folder))
        assert left_over(folder) == []


def _train(deployment: Deployment) -> None:
    (site,) = small_sites(deployment.folder, small(data_sites=1))
    deployment.init()
    folder = deployment.hospital(site)
    hospital, port = read_hospital(folder), free_port()
    supernode = ["flower-supernode", "--superlink", hospital.coordinator, "--isolation", "process"]
    supernode += ["--root-certificates", hospital.ca, "--auth-supernode-private-key", hospital.key]
    supernode += ["--host", "127.0.0.1", "--port", port, "--node-config", f'trainer="{hospital.socket}"']
    superexec = ["flower-superexec", "--insecure", "--runtime-api-address", f"127.0.0.1:{port}"]
    logs = deployment.folder
    with (
        deployment.coordinator(),
        running(logs / "trainer.log", "site", "start", folder, "--only", "trainer") as trainer,
        flower(logs / "supernode.log", *supernode),
        flower(logs / "superexec.log", *superexec),
    ):
        trainer.wait_for("serves ")
        fedurwkv("coordinator", "run", deployment.study, *sets_of(ALONE))
    (run,) = (deployment.study / "runs").iterdir()
    assert [record["failed"] for record in json.loads((run / "result.json").read_text())["rounds"]] == [{}] * 2
