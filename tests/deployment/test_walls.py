"""A hospital in two places, as docker/compose.yml mounts its volumes there: what the coordinator's code can reach.

Containers need an engine; here the same volumes are mounted in mount namespaces, below a folder in the place of `/`.
"""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

from protocol.settings import ROOT
from tests.client.hospitals import short_folder
from tests.client.phantoms import SMALL, sets_of, small, small_sites
from tests.deployment.federation import Deployment, Running, fedurwkv, left_over, running
from tests.deployment.federation import words as command

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ALONE = SMALL | {"data.sites": 1, "federation.quorum": 1}
SERVICES = yaml.safe_load((ROOT / "docker" / "compose.yml").read_text())["services"]


def mounts(root: Path, volumes: Path, service: str) -> tuple[str, ...]:
    """The words before a command that sees a service's volumes, which lie in `volumes`, at their places in `root`."""
    lines = []
    for entry in SERVICES[service]["volumes"]:
        name, place, *how = entry.split(":")
        lines.append(f"mount --bind '{volumes / name}' '{root}{place}'")
        lines += [f"mount -o remount,bind,ro '{root}{place}'"] if how == ["ro"] else []
    lines += [f"mount -t tmpfs none '{root}{place}'" for place in SERVICES[service]["tmpfs"] if place != "/tmp"]
    return ("unshare", "--mount", "sh", "-ec", "\n".join([*lines, 'exec "$@"']), "sh")


def inside(process: Running, code: str) -> str:
    """What a line of the shell prints where a process runs; its error where it fails."""
    words = ["nsenter", "--mount", "--target", str(process.process.pid), "sh", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr


def test_the_coordinators_code_reaches_the_trainer_and_nothing_else_of_the_hospital() -> None:
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let the test make namespaces")
    with short_folder() as folder:
        _train(Deployment(folder))
        assert left_over(folder) == []


def _train(deployment: Deployment) -> None:
    (data,) = small_sites(deployment.folder, small(data_sites=1))
    deployment.init()
    made, volumes, root = deployment.hospital(data), deployment.folder / "v", deployment.folder / "r"
    for name in ("site1/state/trainer", "site1/privacy", "state1/trainer", "socket1"):  # as docker/prepare.sh does
        (volumes / name).mkdir(parents=True)
    for path in made.iterdir():
        path.rename(volumes / "site1" / path.name)
    data.rename(volumes / "data1")
    (volumes / "site1" / "privacy" / "secret").touch()
    site, pictures = root / "site", root / "data"
    site.mkdir(parents=True)
    pictures.mkdir()
    policy = volumes / "site1" / "site.yaml"
    policy.write_text(policy.read_text().replace(str(data), str(pictures)))
    before = policy.read_text()
    trainer_place, connection_place = (mounts(root, volumes, f"{part}1") for part in ("trainer", "connection"))
    trainer_log, connection_log = deployment.folder / "trainer.log", deployment.folder / "connection.log"
    with (
        deployment.coordinator(),
        running(trainer_log, "site", "start", site, "--only", "trainer", prefix=trainer_place) as trainer,
        running(connection_log, "site", "start", site, "--only", "connection", prefix=connection_place) as connection,
    ):
        trainer.wait_for("serves ")
        connection.wait_for("connected: ")
        fedurwkv("coordinator", "run", deployment.study, *sets_of(ALONE))
        assert "took " in inside(trainer, f"cat '{site}/state/trainer.log'")
        assert sorted(inside(connection, f"ls '{site}/state/trainer'").split()) == sorted(
            path.name for path in (volumes / "socket1").iterdir()
        )
        assert inside(trainer, f"ls '{site}/privacy'") == "secret\n"
        for hidden in (f"{site}/privacy", pictures):
            assert inside(connection, f"ls '{hidden}'") == ""
        assert "No such file" in inside(connection, f"ls '{site}/state/studies'")
        assert "Read-only file system" in inside(connection, f"echo 'privacy:' >> '{site}/site.yaml'")
        assert "Read-only file system" in inside(trainer, f"touch '{pictures}/x'")
        told = [inside(place, " ".join(command("site", "status", site))) for place in (trainer, connection)]
    assert "the trainer alone runs," in told[0]
    assert f"connected to 127.0.0.1:{deployment.port}" in told[1]
    assert all("trainer: ready" in text for text in told)
    assert policy.read_text() == before
    (run,) = (deployment.study / "runs").iterdir()
    assert [record["failed"] for record in json.loads((run / "result.json").read_text())["rounds"]] == [{}] * 2
