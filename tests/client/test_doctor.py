"""The doctor finds what is planted: fifteen faults, each in a hospital that is sound but for it."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from client.commands import site as commands
from client.privacy.ledger import Ledger
from protocol.keys import make_key_pair
from tests.client.hospitals import hospital_at
from tests.client.privacy.test_ledger import ASKED, ROUND, WIDE
from tests.client.site_folders import draw, make_site
from tests.client.tls_servers import https, make_certificates
from tests.deployment.federation import free_port

CASES = 12


def check(hospital: Path, *words: str) -> tuple[int, str]:
    """What `fedurwkv site check` prints, and its exit code."""
    done = CliRunner().invoke(commands, ["check", str(hospital), *words])
    return done.exit_code, done.output


@pytest.fixture
def sound(tmp_path: Path) -> Path:
    """A sound hospital with its data in data/."""
    data = make_site(tmp_path / "data", CASES)
    hospital = hospital_at(tmp_path / "h", data, coordinator=f"127.0.0.1:{free_port()}")
    make_key_pair(hospital.key, hospital.public_key, hospital.name)
    shutil.copy(make_certificates(tmp_path / "c") / "ca.crt", hospital.ca)
    return hospital.folder


def test_a_sound_hospital_is_sound(sound: Path) -> None:
    code, said = check(sound, "--offline", "--set", "train.batch=2", "--set", "data.size=32")
    assert code == 0, said
    assert "no faults: ready for training" in said
    assert "a training step of 2 pictures of 32 x 32 takes" in said


def unreadable(data: Path) -> None:
    (data / "images" / "c03.png").write_bytes(b"\x89PNG broken")


def mask_of_another_size(data: Path) -> None:
    Image.fromarray(np.ones((10, 24), np.uint8)).save(data / "masks" / "c03.png")


def swapped_names(data: Path) -> None:
    (data / "masks" / "c03.png").rename(data / "masks" / "c99.png")


def only_empty_masks(data: Path) -> None:
    for mask in (data / "masks").iterdir():
        Image.fromarray(np.zeros((24, 24), np.uint8)).save(mask)


def a_patient_in_two_splits(data: Path) -> None:
    splits = ["train"] * 8 + ["val"] * 4
    patients = [f"p{number}" for number in range(CASES)]
    patients[-1] = "p0"
    rows = [f"c{n:02},{split},{patient}" for n, (split, patient) in enumerate(zip(splits, patients, strict=True))]
    (data / "site.csv").write_text("\n".join(["name,split,patient", *rows]) + "\n")


def a_white_of_255(data: Path) -> None:
    _, mask = draw(3)
    Image.fromarray(mask * 255).save(data / "masks" / "c03.png")


def too_few(data: Path) -> None:
    for number in range(4, CASES):
        for folder, _ in (("images", 0), ("masks", 1)):
            (data / folder / f"c{number:02}.png").unlink()


@pytest.mark.parametrize(
    ("plant", "code", "says"),
    [
        (unreadable, 1, "c03.png"),
        (mask_of_another_size, 1, "c03.png"),
        (swapped_names, 1, "c99.png has no image of that name"),
        (only_empty_masks, 1, "every mask is empty"),
        (a_patient_in_two_splits, 1, "patient 'p0' lies in two splits"),
        (a_white_of_255, 0, "0 and 255 in 1 mask (c03): read as 0 and 1"),
        (too_few, 0, "few training images"),
    ],
)
def test_faults_of_the_data(sound: Path, plant: Callable[[Path], None], code: int, says: str) -> None:
    plant(sound.parent / "data")
    found, said = check(sound, "--offline", "--set", "train.batch=2", "--set", "data.size=32")
    assert (found, says in said) == (code, True), said


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


def test_no_space(sound: Path) -> None:
    with small_disk(sound / "state"):
        code, said = check(sound, "--offline")
    assert code == 1
    assert "has 0.00 GiB left, and 1 are needed; make space" in said


@pytest.mark.parametrize("who", ["hospital", "study"])
def test_privacy_without_a_ledger(sound: Path, who: str) -> None:
    words = ["--offline", "--set", "train.batch=2", "--set", "data.size=32"]
    if who == "hospital":
        path = sound / "site.yaml"
        path.write_text(path.read_text().replace("unit: none", "unit: patient"))
    else:
        words += ["--set", "privacy.epsilon=4"]
    code, said = check(sound, *words)
    assert (
        code,
        f"privacy holds no ledger; if these patients' images were never trained on: fedurwkv site budget {sound}"
        in said,
    ) == (1, True), said
    Ledger(sound / "privacy").open()
    assert check(sound, *words)[0] == 0
    (sound / "privacy" / "head.json").unlink()
    code, said = check(sound, *words)
    assert (code, "head.json is missing" in said) == (1, True), said


def paid(hospital: Path) -> None:
    """A ledger with one payment."""
    ledger = Ledger(hospital / "privacy")
    ledger.open()
    ledger.spend(ASKED, ROUND, "patient", 50, WIDE)


def test_training_without_privacy_on_patients_who_were_promised_a_bound(sound: Path) -> None:
    words = ["--offline", "--set", "train.batch=2", "--set", "data.size=32"]
    assert "is void" not in check(sound, *words)[1]
    paid(sound)
    code, said = check(sound, *words)
    assert (code, "note   privacy.unit = none in" in said, "holds 1 payment: its bound" in said) == (0, True, True), (
        said
    )


def test_numbers_that_leave_without_noise_beside_private_updates(sound: Path) -> None:
    words = ["--offline", "--set", "train.batch=2", "--set", "data.size=32"]
    assert "beside private updates" not in check(sound, *words)[1]
    paid(sound)
    path = sound / "site.yaml"
    before = path.read_text()
    path.write_text(before.replace("unit: none", "unit: patient"))
    told = "beside private updates all numbers that have no noise, train.loss among them, leave as they are"
    assert told in check(sound, *words)[1]
    told = "beside private updates val.dice leave as they are, rounded to 17 decimals: no epsilon covers them"
    path.write_text(before.replace("scalars: any", "scalars: train.images, val.dice, val.images"))
    assert told in check(sound, *words, "--set", "privacy.epsilon=4")[1]
    assert "beside private updates" not in check(sound, *words)[1]


def test_a_policy_that_cannot_be_read(sound: Path) -> None:
    path = sound / "site.yaml"
    path.write_text(path.read_text().replace("  delta:", "  delte:"))
    code, said = check(sound, "--offline", "--set", "train.batch=2", "--set", "data.size=32")
    assert (code, "nothing is trained until it is mended" in said) == (1, True), said


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_key_of_the_wrong_owner(sound: Path) -> None:
    os.chown(sound / "site.key", 12345, 12345)
    code, said = check(sound, "--offline")
    assert (code, "belongs to user 12345" in said) == (1, True)


def test_a_device_that_is_not_there(sound: Path) -> None:
    words = (sound / "site.yaml").read_text().replace("device: cpu", "device: cuda:97")
    (sound / "site.yaml").write_text(words)
    code, said = check(sound, "--offline")
    assert code == 1
    assert "device in site.yaml = 'cuda:97', but torch sees" in said


@pytest.mark.gpu
def test_a_gpu_too_small(sound: Path) -> None:
    words = (sound / "site.yaml").read_text().replace("device: cpu", "device: cuda")
    (sound / "site.yaml").write_text(words)
    _, total = torch.cuda.mem_get_info()
    torch.cuda.set_per_process_memory_fraction(64 * 2**20 / total)
    try:
        code, said = check(sound, "--offline", "--set", "train.batch=64", "--set", "data.size=256")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert code == 1
    assert "is too small: " in said


@pytest.mark.parametrize(
    ("coordinator", "says"),
    [
        ("nowhere.invalid:9092", "nowhere.invalid does not resolve"),
        ("127.0.0.1:{closed}", "has nothing on port"),
        ("127.0.0.1:{stranger}", "is not of the study's authority"),
        ("127.0.0.1:{late}", "s behind the coordinator's; set it by NTP"),
    ],
)
def test_faults_of_the_way(sound: Path, coordinator: str, says: str) -> None:
    ours = sound.parent / "c"
    with https(make_certificates(sound.parent / "other")) as stranger, https(ours, 600.0) as late:
        ports = {"closed": free_port(), "stranger": stranger, "late": late}
        words = (sound / "site.yaml").read_text()
        before = next(line for line in words.splitlines() if line.startswith("  coordinator:"))
        (sound / "site.yaml").write_text(words.replace(before, f"  coordinator: {coordinator.format(**ports)}"))
        code, said = check(sound, "--set", "train.batch=2", "--set", "data.size=32")
    assert (code, says in said) == (1, True), said
