"""Where a site computes: the device, the precision and the CPU threads."""

import contextlib
import ctypes
import functools
import re
from dataclasses import dataclass
from typing import Literal

import torch

from client.cores import cores
from protocol.errors import SettingsError
from protocol.settings import require

Compile = Literal["auto", "off", "graph", "inductor"]


@dataclass(frozen=True)
class PlaceSettings:
    """The `train.*` settings of where and how to compute: device, precision, CPU threads (0: all cores), and whether
    work is captured on a GPU (see `client.repeated`)."""

    device: str
    precision: Literal["auto", "fp32", "bf16"]
    threads: int
    compile: Compile

    def __post_init__(self) -> None:
        require(self.threads >= 0, "threads", self.threads, "0 (all cores) or more")


@dataclass(frozen=True)
class Place:
    """A device, the precision that is used on it, and whether work is captured there."""

    device: torch.device
    bf16: bool
    compile: Compile

    @property
    def dtype(self) -> torch.dtype:
        """In which layers multiply."""
        return torch.bfloat16 if self.bf16 else torch.float32

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """bf16 autocast where that is the precision, else nothing."""
        return torch.autocast(self.device.type, self.dtype) if self.bf16 else contextlib.nullcontext()

    def send(self, tensor: torch.Tensor) -> torch.Tensor:
        """The tensor on the device; the copy overlaps with computation where the tensor is in pinned memory."""
        return tensor.to(self.device, non_blocking=True)


@functools.cache
def keep_memory() -> None:
    """Have the C library keep what is freed, in one heap for all threads, for the rest of the process.

    Unless told, glibc hands large blocks back to the kernel when they are freed, from threads other than the main
    one most of all, and the next training step pays for every page of its maps again: a tenth of a step of maps of
    128 pixels, more than half of one of 256. Other C libraries are left as they are.
    """
    trim_threshold, mmap_max, arena_max = -1, -4, -8  # M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX of mallopt(3)
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(trim_threshold, 2**31 - 1)
        libc.mallopt(mmap_max, 0)
        libc.mallopt(arena_max, 1)


def find_place(settings: PlaceSettings, index: int = 0) -> Place:
    """The place that the settings name.

    Args:
        index: which GPU `auto` takes, modulo their number; a simulation counts its sites here.

    Raises:
        SettingsError: there is no such device, or it cannot compute in the precision or the way asked for.
    """
    torch.set_num_threads(settings.threads or cores())
    keep_memory()
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
    if settings.compile in ("graph", "inductor") and device.type != "cuda":
        raise SettingsError(
            f"train.compile = {settings.compile!r} captures on a GPU, and train.device is cpu; use auto or off"
        )
    bf16 = settings.precision == "bf16" or (settings.precision == "auto" and can_bf16)
    return Place(device, bf16, settings.compile)
