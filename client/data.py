"""One split of a site in memory, and the batches that training draws from it."""

import functools
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from client.cores import cores
from client.images import Pixels, read_case
from client.site import Site
from protocol.seeds import seed_of

MEAN = 127.5
"""The grey that becomes 0: the middle of the 8-bit range, the same for all sites, so that nothing is estimated."""

SCALE = 63.75
"""The 8-bit steps that become 1: black and white lie at -2 and 2."""

THREADS = max(1, min(8, cores() - 1))
"""Threads that decode and augment."""

AHEAD = THREADS + 2
"""Batches that are made while the consumer computes."""

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class Images:
    """Decoded cases: images (N, H, W, C) and masks (N, H, W), both uint8, and their names."""

    images: Pixels
    masks: Pixels
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)


def load_split(site: Site, split: str, size: int, in_channels: int, num_classes: int) -> Images:
    """Decode the cases of one split, once, to squares of side `size`.

    Raises:
        DataError: a case cannot be used; it names the file.
    """
    cases = site.split(split)
    images = np.empty((len(cases), size, size, in_channels), np.uint8)
    masks = np.empty((len(cases), size, size), np.uint8)

    def decode(row: int) -> None:
        images[row], masks[row] = read_case(cases[row], size, in_channels, num_classes)

    for done in [_pool().submit(decode, row) for row in range(len(cases))]:
        done.result()
    return Images(images, masks, tuple(case.name for case in cases))


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 (B, H, W, C) on any device to float32 (B, C, H, W) in [-2, 2], channels last in memory."""
    return ((pixels.float() - MEAN) / SCALE).permute(0, 3, 1, 2)


def batch_starts(count: int, batch: int, fewest: int = 1) -> list[int]:
    """Where the batches of an epoch over `count` images begin: each has `batch` images, the last may have fewer.

    A last one of fewer than `fewest` goes into the one before: else a study could choose `batch` so that one image
    weighs as much as all the others.

    >>> batch_starts(9, 4), batch_starts(9, 4, fewest=2)
    ([0, 4, 8], [0, 4])
    """
    starts = list(range(0, count, batch))
    return starts[:-1] if len(starts) > 1 and count - starts[-1] < fewest else starts


def batches(
    images: Images, batch: int, seed: int, *, augment: bool, pinned: bool = False, fewest: int = 1
) -> Iterator[Batch]:
    """One epoch in a shuffled order: image batches (B, H, W, C) and mask batches (B, H, W), both uint8.

    Batches are made ahead in background threads. Order and augmentation follow from `seed` and the batch's
    number alone, never from the timing of threads. The last batch may be smaller, see `batch_starts`.

    Args:
        pinned: put the batches in pinned memory, from which copies to a GPU overlap with computing.
    """
    order = np.random.default_rng(seed).permutation(len(images))
    starts = batch_starts(len(order), batch, fewest)
    rows = np.split(order, starts[1:]) if starts else []
    made: deque[Future[Batch]] = deque()
    try:
        for number in range(len(rows) + AHEAD):
            if number < len(rows):
                drawn = seed_of(seed, number)
                made.append(_pool().submit(_make_batch, images, rows[number], drawn, augment, pinned))
            if number >= AHEAD - 1 and made:
                yield made.popleft().result()
    finally:
        for late in made:
            late.cancel()


def _make_batch(images: Images, rows: np.ndarray, seed: int, augment: bool, pinned: bool) -> Batch:
    pixels, masks = images.images[rows], images.masks[rows]
    if augment:
        # albumentations takes seconds to import, and only training needs it
        from client.augment import augment_in_place

        augment_in_place(pixels, masks, seed)
    made = torch.from_numpy(pixels), torch.from_numpy(masks)
    return (made[0].pin_memory(), made[1].pin_memory()) if pinned else made


@functools.cache
def _pool() -> ThreadPoolExecutor:
    """The threads, shared by all sites of the process, and ended with it."""
    return ThreadPoolExecutor(THREADS, thread_name_prefix="data")
