"""The rest of `fedurwkv site check`, beside the data: disk, a dry training step, and the way to the coordinator."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from client.check import Finding
from client.connection import CLOCK_SECONDS, check_words, is_proxied, reach
from client.data import normalise
from client.device import PlaceSettings, find_place
from client.hospital import Hospital
from client.privacy.allowed import ANY, NONE
from client.privacy.budget import check_readiness
from client.privacy.policy import Policy
from client.privacy.promise import void_promise
from client.service import own_settings
from client.training import TrainSettings
from protocol.address import read_address
from protocol.errors import DeploymentError, LedgerError, PolicyError, SettingsError
from protocol.settings import Table, section
from urwkv import URWKV, Architecture
from urwkv.losses import segmentation_loss

LEAST_SPACE = 2**30
"""Bytes that the state folder's disk must have left: Flower's home, logs, and what strategies have sites remember."""

GIB = 2**30


def examine(hospital: Hospital, table: Table, *, offline: bool) -> Iterator[Finding]:
    """What is wrong or strange, and what was measured, beside the data."""
    yield from _privacy(hospital, asked=float(table["privacy.epsilon"]) > 0)
    yield from _disk(hospital.state)
    yield from _dry_step(own_settings(hospital, table))
    yield from _here(hospital) if offline else _way(hospital)


def _privacy(hospital: Hospital, *, asked: bool) -> Iterator[Finding]:
    try:
        policy = check_readiness(hospital.folder, asked=asked)
    except (LedgerError, PolicyError) as error:
        yield Finding(True, str(error))
        return
    if words := void_promise(policy):
        yield Finding(False, words)
    if asked or policy.privacy.unit != NONE:
        yield from _exact(policy)


def _exact(policy: Policy) -> Iterator[Finding]:
    """The numbers that go out beside a private update, and that no noise covers."""
    names = policy.allow.uncovered
    if names:
        which = "all numbers that have no noise, train.loss among them," if names == [ANY] else ", ".join(names)
        rounded = f"rounded to {policy.allow.decimals} decimals"
        yield Finding(
            False,
            f"beside private updates {which} leave as they are, {rounded}: no epsilon covers them; leave them out of"
            " allow.scalars, or name in allow.noised those that can bear noise",
        )


def _disk(state: Path) -> Iterator[Finding]:
    folder = next(path for path in (state, *state.parents) if path.is_dir())
    free = shutil.disk_usage(folder).free
    if free < LEAST_SPACE:
        yield Finding(
            True,
            f"the disk of {state} has {free / GIB:.2f} GiB left, and {LEAST_SPACE / GIB:.0f} are needed; make space,"
            " or name another folder under state in site.yaml",
        )


def _dry_step(table: Table) -> Iterator[Finding]:
    """One training step of the study's network on grey pictures, after one that warms up."""
    training, size = section(table, "train", TrainSettings), int(table["data.size"])
    what = f"{training.batch} pictures of {size} x {size}"
    try:
        place = find_place(section(table, "train", PlaceSettings))
        seconds, memory = _step(table, place.device, training.batch, size)
    except SettingsError as error:
        yield Finding(True, str(error).replace("train.device", "device in site.yaml"))
        return
    except torch.OutOfMemoryError:
        free, total = torch.cuda.mem_get_info(place.device)
        yield Finding(
            True,
            f"{torch.cuda.get_device_name(place.device)} is too small: {free / GIB:.1f} of {total / GIB:.1f} GiB are"
            f" free, and a step of {what} needs more; free it, name another device in site.yaml, or ask the study's"
            " lead for a smaller train.batch",
        )
        return
    used = f", {memory / GIB:.2f} GiB of its memory" if memory else ""
    yield Finding(False, f"a training step of {what} takes {seconds:.2f} s on {place.device}{used}")


def _step(table: Table, device: torch.device, batch: int, size: int) -> tuple[float, int]:
    """Seconds of a warm training step, and the most memory of the device that it took; 0 on the CPU."""
    architecture = section(table, "model", Architecture)
    model = URWKV.from_architecture(architecture).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    pixels = torch.full((batch, size, size, architecture.in_channels), 128, dtype=torch.uint8, device=device)
    masks = torch.zeros((batch, size, size), dtype=torch.uint8, device=device)
    masks[:, size // 4 : size // 2] = 1
    seconds = 0.0
    for _ in range(2):
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        loss = segmentation_loss(model(normalise(pixels)), masks)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        loss.item()  # waits for the device
        seconds = time.perf_counter() - began
    return seconds, torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def _here(hospital: Hospital) -> Iterator[Finding]:
    try:
        check_words(hospital)
    except DeploymentError as error:
        yield Finding(True, str(error))


def _way(hospital: Hospital) -> Iterator[Finding]:
    try:
        clock = reach(hospital)
    except DeploymentError as error:
        yield Finding(True, str(error))
        return
    if abs(clock) > CLOCK_SECONDS:
        yield Finding(
            False, f"this machine's clock and the coordinator's differ by {abs(clock):.0f} s; set it by NTP"
        )
    proxy = " through a proxy" if is_proxied(read_address(hospital.coordinator)[0]) else ""
    yield Finding(False, f"{hospital.coordinator} is reached{proxy}, and knows {hospital.name}'s key")
