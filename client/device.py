"""Where a site computes: the device, the precision and the CPU threads."""

import contextlib
import os
import re
from dataclasses import dataclass
from typing import Literal

import torch

from protocol.errors import SettingsError
from protocol.settings import require


@dataclass(frozen=True)
class PlaceSettings:
    """The `train.*` settings of where to compute: device, precision, CPU threads (0: all cores)."""

    device: str
    precision: Literal["auto", "fp32", "bf16"]
    threads: int

    def __post_init__(self) -> None:
        require(self.threads >= 0, "threads", self.threads, "0 (all cores) or more")


@dataclass(frozen=True)
class Place:
    """A device and the precision that is used on it."""

    device: torch.device
    bf16: bool

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """bf16 autocast where that is the precision, else nothing."""
        return torch.autocast(self.device.type, torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device; the copy overlaps with computation where the tensor is in pinned memory."""
        return tensor.to(self.device, non_blocking=True)


def find_place(settings: PlaceSettings, index: int = 0) -> Place:
    """The place that the settings name.

    Args:
        index: which GPU `auto` takes, modulo their number; a simulation counts its sites here.

    Raises:
        SettingsError: there is no such device, or it cannot compute in the precision asked for.
    """
    torch.set_num_threads(settings.threads or os.cpu_count() or 1)
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    name = settings.device
    if name == "auto":
        name = f"cuda:{index % gpus}" if gpus else "cpu"
    if re.fullmatch(r"cpu|cuda(:\d+)?", name) is None:
        raise SettingsError(f"train.device = {settings.device!r} is not one of: auto, cpu, cuda, cuda:N")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= gpus:
        raise SettingsError(f"train.device = {settings.device!r}, but torch sees {gpus} GPUs; use auto or cpu")
    can_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    if settings.precision == "bf16" and device.type == "cuda" and not can_bf16:
        raise SettingsError(f"train.precision = 'bf16', but {torch.cuda.get_device_name(device)} has none; use fp32")
    return Place(device, settings.precision == "bf16" or (settings.precision == "auto" and can_bf16))
