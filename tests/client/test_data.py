"""Data in memory and batches: whole, seeded, independent of threads, and clean when given up."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from client import data
from client.data import Images, batches, load_split, normalise
from client.site import read_site
from protocol.errors import DataError
from tests.client.site_folders import draw, make_site


def some(count: int, side: int = 16, channels: int = 3) -> Images:
    """Images whose every pixel is their number, so that they can be told apart in a batch."""
    numbers = np.arange(count, dtype=np.uint8)
    images = np.broadcast_to(numbers[:, None, None, None], (count, side, side, channels)).copy()
    masks = np.broadcast_to((numbers % 2)[:, None, None], (count, side, side)).copy()
    return Images(images, masks, tuple(map(str, range(count))))


def epoch(images: Images, batch: int, seed: int, augment: bool) -> list[tuple[torch.Tensor, torch.Tensor]]:
    return list(batches(images, batch, seed, augment=augment))


def test_a_split_is_decoded_once_and_whole(tmp_path: Path) -> None:
    site = read_site(make_site(tmp_path / "s", side=24), seed=0, val=0.2, test=0.2)
    images = load_split(site, "train", 24, 3, 1)
    assert images.images.shape == (8, 24, 24, 3)
    assert images.masks.shape == (8, 24, 24)
    assert images.images.dtype == images.masks.dtype == np.uint8
    for row, case in enumerate(site.split("train")):
        image, mask = draw(int(case.name[1:]), 24)
        assert images.names[row] == case.name
        assert np.array_equal(images.images[row], image)
        assert np.array_equal(images.masks[row], mask)


def test_an_empty_split_is_empty(tmp_path: Path) -> None:
    site = read_site(make_site(tmp_path / "s"), seed=0, val=0.2, test=0.0)
    images = load_split(site, "test", 16, 1, 1)
    assert len(images) == 0
    assert images.images.shape == (0, 16, 16, 1)


def test_a_bad_case_is_named(tmp_path: Path) -> None:
    site = read_site(make_site(tmp_path / "s"), seed=0, val=0.2, test=0.2)
    bad = site.split("train")[5]
    bad.image.write_bytes(b"?")
    with pytest.raises(DataError, match=f"{bad.name}.png is not an image"):
        load_split(site, "train", 16, 3, 1)


def test_normalise_by_hand() -> None:
    pixels = torch.tensor([[[[0, 255]], [[127, 128]]]], dtype=torch.uint8)  # (1, 2, 1, 2)
    made = normalise(pixels)
    assert made.dtype == torch.float32
    assert made.shape == (1, 2, 2, 1)
    assert made[0, 0, :, 0].tolist() == pytest.approx([-2.0, -0.5 / 63.75])
    assert made[0, 1, :, 0].tolist() == pytest.approx([2.0, 0.5 / 63.75])
    colour = normalise(torch.zeros((2, 8, 8, 3), dtype=torch.uint8))
    assert colour.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("augment", [False, True])
@pytest.mark.parametrize("count", [1, 7, 8, 41])
def test_an_epoch_holds_every_image_once(count: int, augment: bool) -> None:
    made = epoch(some(count), 4, 0, augment)
    assert [len(image) for image, _ in made] == [4] * (count // 4) + [count % 4] * (count % 4 > 0)
    assert all(image.dtype == mask.dtype == torch.uint8 for image, mask in made)
    if not augment:
        seen = torch.cat([image[:, 0, 0, 0] for image, _ in made])
        assert sorted(seen.tolist()) == list(range(count))
        assert torch.cat([mask[:, 0, 0] for _, mask in made]).tolist() == [number % 2 for number in seen.tolist()]


def test_the_order_is_shuffled_by_the_seed() -> None:
    orders = [torch.cat([image[:, 0, 0, 0] for image, _ in epoch(some(30), 4, seed, False)]) for seed in (1, 1, 2)]
    assert torch.equal(orders[0], orders[1])
    assert not torch.equal(orders[0], orders[2])
    assert orders[0].tolist() != sorted(orders[0].tolist())


def test_augmentation_does_not_depend_on_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = Images(
        rng.integers(0, 256, (40, 32, 32, 3), dtype=np.uint8),
        rng.integers(0, 2, (40, 32, 32), dtype=np.uint8),
        tuple(map(str, range(40))),
    )
    runs = []
    for threads in (1, 4, 4):
        data._pool.cache_clear()
        monkeypatch.setattr(data, "THREADS", threads)
        runs.append(epoch(images, 4, 9, True))
        data._pool().shutdown()
    data._pool.cache_clear()
    for other in runs[1:]:
        for (image, mask), (image_again, mask_again) in zip(runs[0], other, strict=True):
            assert torch.equal(image, image_again)
            assert torch.equal(mask, mask_again)


def test_the_data_are_not_changed() -> None:
    images = some(12)
    epoch(images, 4, 0, True)
    assert np.array_equal(images.images, some(12).images)
    assert np.array_equal(images.masks, some(12).masks)


def test_no_two_batches_are_augmented_alike() -> None:
    one = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), dtype=np.uint8)
    same = Images(np.repeat(one, 12, axis=0), np.zeros((12, 32, 32), np.uint8), tuple(map(str, range(12))))
    made = [image.numpy().tobytes() for image, _ in epoch(same, 3, 0, True)]
    assert len(set(made)) == 4


def test_a_consumer_that_stops_early_leaves_no_work_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    made, go_on = [], threading.Event()

    def make(images: Images, rows: np.ndarray, *_: object) -> data.Batch:
        made.append(rows)
        if len(made) > 1:
            go_on.wait(10)
        return torch.from_numpy(images.images[rows]), torch.from_numpy(images.masks[rows])

    data._pool.cache_clear()
    monkeypatch.setattr(data, "THREADS", 1)
    monkeypatch.setattr(data, "_make_batch", make)
    stream = batches(some(40), 2, 0, augment=True)
    next(stream)
    stream.close()
    go_on.set()
    data._pool().shutdown()
    data._pool.cache_clear()
    assert len(made) <= 2


def test_a_last_batch_of_too_few_goes_into_the_one_before() -> None:
    images = some(9)
    alone = list(batches(images, 8, 0, augment=False))
    assert [len(pixels) for pixels, _ in alone] == [8, 1]
    (together,) = batches(images, 8, 0, augment=False, fewest=2)
    assert (together[0] == torch.cat([pixels for pixels, _ in alone])).all()
    assert [len(pixels) for pixels, _ in batches(images, 4, 0, augment=False, fewest=1)] == [4, 4, 1]
    assert [len(pixels) for pixels, _ in batches(some(1), 4, 0, augment=False, fewest=2)] == [1]
    assert list(batches(some(0), 4, 0, augment=False)) == []
