"""The real thing on the loopback address: SuperLink, SuperNodes, trainers, TLS, keys, by the command line alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console
from safetensors.numpy import load_file

from simulation.simulate import simulate
from tests.client.hospitals import short_folder
from tests.client.phantoms import SMALL, small, small_sites
from tests.deployment.federation import Deployment, fedurwkv, left_over

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
    sets = [word for key, value in STUDY.items() for word in ("--set", f"{key}={value}")]
    with deployment.coordinator() as coordinator, deployment.sites(hospitals):
        printed = fedurwkv("coordinator", "run", deployment.study, *sets, seconds=600)
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
