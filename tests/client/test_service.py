import os
import stat
import subprocess
import sys
import threading
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from client.courier import ask
from client.hospital import Hospital
from client.service import make_trainer, serve
from client.trainer import Trainer
from client.trainer_pb2_grpc import TrainerStub
from client.wire import LARGEST, task_message
from protocol.errors import DataError, DeploymentError, RunError
from protocol.messages import DESCRIBE, EVALUATE, TRAIN, Task
from protocol.packing import Schema
from protocol.settings import ROOT, Table
from protocol.version import code_digest
from server.app import initial_model
from tests.client.hospitals import hospital_at
from tests.client.phantoms import pretend, small, small_sites


@pytest.fixture
def hospital(folder: Path) -> Hospital:
    data, _ = small_sites(folder, small())
    return hospital_at(folder / "h", data)


def serving(hospital: Hospital) -> AbstractContextManager[None]:
    return serve(hospital, partial(make_trainer, hospital))


def training(table: Table) -> Task:
    x = initial_model(table)
    schema = Schema.of((name, a.shape, a.dtype) for name, a in x.items())
    return Task(TRAIN, 1, schema.hash, schema.pack(x), settings=table)


def test_the_service_answers_as_the_trainer_in_process_does_bit_for_bit(hospital: Hospital) -> None:
    table = small()
    with serving(hospital):
        described = ask(hospital.socket, Task(DESCRIBE, settings=table), 60)
        reply = ask(hospital.socket, training(table), 60)
    expected = pretend(hospital.data, table | {"train.device": "cpu"}).answer(training(table))
    assert described.site == reply.site == hospital.name
    assert reply.model == expected.model
    same = {name for name in expected.scalars if not name.startswith("seconds.")}
    assert {name: reply.scalars[name] for name in same} == {name: expected.scalars[name] for name in same}


def test_the_hospitals_name_and_device_are_its_own(folder: Path) -> None:
    data, _ = small_sites(folder, small())
    hospital = hospital_at(folder / "h", data, name="mercy")
    trainer = make_trainer(hospital, small(train_device="cuda:7"), "")
    assert (trainer.site.name, trainer.place.device.type) == ("mercy", "cpu")


def test_what_a_site_remembers_lies_in_its_state_a_folder_a_study(hospital: Hospital) -> None:
    task = training(small(federation_strategy="fedbn"))
    with serving(hospital):
        for study in ("one", "one", "../../two"):
            ask(hospital.socket, replace(task, study=study), 60)
    kept = [path.relative_to(hospital.state).parts for path in hospital.state.rglob("round-0001.safetensors")]
    assert [parts[0] for parts in kept] == ["studies", "studies"]
    assert len({parts[1] for parts in kept}) == 2


def test_only_the_owner_can_open_the_socket(hospital: Hospital) -> None:
    with serving(hospital):
        assert stat.S_IMODE(hospital.socket.stat().st_mode) == 0o600
        assert stat.S_IMODE(hospital.socket.parent.stat().st_mode) == 0o700


def test_what_the_coordinators_code_puts_beside_the_socket_is_not_followed(hospital: Hospital, folder: Path) -> None:
    hospital.socket.parent.mkdir(parents=True)
    for name in ("lock", "service.lock"):
        (hospital.socket.parent / name).symlink_to(folder / "made")
    with serving(hospital):
        assert not (folder / "made").exists()


def test_the_standard_health_service_answers(hospital: Hospital) -> None:
    with (
        serving(hospital),
        grpc.insecure_channel(f"unix:{hospital.socket}") as channel,
    ):
        asked = health_pb2.HealthCheckRequest(service="fedurwkv.Trainer")
        answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=10)
    assert answer.status == health_pb2.HealthCheckResponse.SERVING


def test_another_code_version_is_refused_by_name_before_anything_is_computed(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    def none(settings: Table, study: str) -> Trainer:
        raise AssertionError("a trainer was made")

    with (
        serve(hospital, none),
        grpc.insecure_channel(f"unix:{hospital.socket}") as channel,
        pytest.raises(grpc.RpcError) as refused,
    ):
        TrainerStub(channel).Answer(task_message(Task(DESCRIBE), "0123456789abcdef"), timeout=10)
    assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "another version of the code" in refused.value.details()
    assert code_digest()[:12] in refused.value.details()
    assert "another version of the code" in caplog.text


def test_a_name_that_is_not_the_enrolled_one_is_told_at_the_site(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(hospital):
        ask(hospital.socket, Task(DESCRIBE, settings=small(), site=hospital.name), 60)
        assert "refused by the coordinator" not in caplog.text
        assert ask(hospital.socket, Task(DESCRIBE, settings=small(), site="mercy"), 60).site == hospital.name
    assert f"key is enrolled as 'mercy', and {hospital.folder}/site.yaml says name: {hospital.name}" in caplog.text


def test_a_scalar_that_is_not_on_the_list_stays_here(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, _ = small_sites(folder, small())
    hospital = hospital_at(folder / "h", data, scalars="train.images, train.loss, val.dice, seconds.train")
    with serving(hospital):
        reply = ask(hospital.socket, training(small()), 60)
    assert {name for name in reply.scalars if name.startswith("val.")} == {"val.dice"}
    assert "does not name them: seconds.evaluate" in caplog.text
    assert ", val.images, val.iou, val.loss" in caplog.text


def test_what_the_site_cannot_do_comes_back_as_its_reason(folder: Path) -> None:
    hospital = hospital_at(folder / "h", folder / "nothing")
    with serving(hospital), pytest.raises(DeploymentError, match="is no folder: give the path of a site"):
        ask(hospital.socket, Task(DESCRIBE, settings=small()), 60)


def test_a_fault_of_the_program_names_its_place_and_no_file(
    hospital: Hospital, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(settings: Table, study: str) -> Trainer:
        raise PermissionError(13, "Permission denied", "/data/images/jane-doe.png")

    with (
        serve(hospital, broken),
        pytest.raises(DeploymentError, match=r"fault .*PermissionError, test_service\.py:\d+.*its log") as told,
    ):
        ask(hospital.socket, Task(DESCRIBE, settings=small()), 60)
    assert "jane-doe" not in str(told.value)
    assert "jane-doe" in caplog.text


def test_a_changed_policy_holds_from_the_next_task_on(hospital: Hospital) -> None:
    path = hospital.folder / "site.yaml"
    task = Task(DESCRIBE, settings=small())
    with serving(hospital):
        assert "train.images" in ask(hospital.socket, task, 60).scalars
        path.write_text(path.read_text().replace("scalars: any", "scalars: train.images"))
        assert ask(hospital.socket, task, 60).scalars.keys() == {"train.images"}
        path.write_text(path.read_text().replace("strategies: any", "strategies: fedprox"))
        with pytest.raises(DeploymentError, match="'fedavg' is refused"):
            ask(hospital.socket, task, 60)
        path.unlink()
        with pytest.raises(DeploymentError, match=r"site\.yaml is missing"):
            ask(hospital.socket, task, 60)


def test_a_site_without_its_trainer_answers_at_once(hospital: Hospital) -> None:
    began = time.monotonic()
    with pytest.raises(DeploymentError, match=r"trainer does not answer .*fedurwkv site start"):
        ask(hospital.socket, Task(DESCRIBE), 60)
    with serving(hospital):
        pass
    hospital.socket.touch()
    with pytest.raises(DeploymentError, match=r"trainer does not answer .*fedurwkv site start"):
        ask(hospital.socket, Task(DESCRIBE), 60)
    assert time.monotonic() - began < 10


def test_a_task_ends_with_its_round_and_the_next_one_is_done(hospital: Hospital) -> None:
    made: list[Trainer] = []

    def make(settings: Table, study: str) -> Trainer:
        made.append(make_trainer(hospital, settings, study))
        return made[-1]

    task = training(small(train_epochs=10_000))
    with serve(hospital, make):
        with pytest.raises(DeploymentError, match="did not finish within the 3 s"):
            ask(hospital.socket, task, 3)
        began = time.monotonic()
        assert "val.dice" in ask(hospital.socket, replace(task, kind=EVALUATE), 60).scalars
        assert time.monotonic() - began < 30
    assert len(made) == 2


def test_the_service_stops_in_the_middle_of_a_round(hospital: Hospital) -> None:
    reasons: list[str] = []

    def courier() -> None:
        try:
            ask(hospital.socket, training(small(train_epochs=10_000)), 60)
        except DeploymentError as error:
            reasons.append(str(error))

    with serving(hospital):
        asking = threading.Thread(target=courier)
        asking.start()
        time.sleep(3)
        began = time.monotonic()
    asking.join()
    assert time.monotonic() - began < 10
    assert "given up on request" in reasons[0]


def test_a_message_over_the_cap_is_refused_at_both_ends(hospital: Hospital) -> None:
    task = replace(training(small()), model=bytes(LARGEST + 1))
    with serving(hospital):
        with pytest.raises(DeploymentError, match="larger than the site's trainer takes"):
            ask(hospital.socket, task, 60)
        unbounded = [("grpc.max_send_message_length", -1)]
        with (
            grpc.insecure_channel(f"unix:{hospital.socket}", options=unbounded) as channel,
            pytest.raises(grpc.RpcError) as refused,
        ):
            TrainerStub(channel).Answer(task_message(task, code_digest()), timeout=60)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


def test_two_trainers_of_one_hospital_are_one_too_many(hospital: Hospital) -> None:
    with serving(hospital), pytest.raises(RunError, match="another trainer of site1-ultrasound is running"):
        serving(hospital).__enter__()


def test_a_path_too_long_for_a_socket_is_refused_with_the_cure(folder: Path) -> None:
    hospital = hospital_at(folder / "h", folder, state="x" * 100)
    with pytest.raises(DeploymentError, match="name a shorter folder under state"):
        serving(hospital).__enter__()


def test_the_courier_of_a_deployment_imports_no_torch(hospital: Hospital) -> None:
    code = "\n".join([
        "import sys",
        "from pathlib import Path",
        "import client.app, client.courier",
        "from protocol.errors import DeploymentError",
        "from protocol.messages import Task",
        "from protocol.settings import defaults",
        "try:",
        "    client.courier.ask(Path(sys.argv[1]), Task('query.describe', settings=defaults()), 10)",
        "except DeploymentError as error:",
        "    sys.exit('torch was imported' if 'torch' in sys.modules else str(error))",
    ])  # fmt: skip

    def none(settings: Table, study: str) -> Trainer:
        raise DataError("asked")

    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with serve(hospital, none):
        words = [sys.executable, "-c", code, str(hospital.socket)]
        done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.stderr.strip().splitlines()[-1] == "asked"
