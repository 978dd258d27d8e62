from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from client.data import normalise
from client.device import Place
from client.images import read_case
from client.model_file import open_model
from client.predictor import Predictor
from client.site import Case
from protocol.errors import DataError
from tests.client.models import SMALL, write_model
from urwkv import URWKV, Architecture
from urwkv.predict import predict_labels

CPU = Place(torch.device("cpu"), bf16=False, compile="auto")


def draw(path: Path, width: int, height: int, seed: int = 0) -> Path:
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def balanced(path: Path, architecture: Architecture = SMALL) -> URWKV:
    """A random model whose logits are spread about 0, so that labels are of both kinds."""
    model, _ = open_model(write_model(path, architecture))
    with torch.no_grad():
        model.head.weight *= 20
        model.head.bias -= model(torch.randn(4, 3, 64, 64)).mean((0, 2, 3))
    return model


def advanced() -> tuple[list[float], object]:
    steps: list[float] = []
    return steps, steps.append


def test_a_picture_is_given_as_in_training_and_comes_back_at_its_own_size(tmp_path: Path) -> None:
    model = balanced(tmp_path / "m")
    paths = [draw(tmp_path / f"{n}.png", *size, seed=n) for n, size in enumerate([(48, 48), (120, 80), (30, 17)])]
    predictor = Predictor(model, CPU, 48)
    pictures = [predictor.read(path, overlay=False) for path in paths]
    steps, advance = advanced()
    found = predictor.labels(pictures, advance)  # type: ignore[arg-type]
    assert steps == [1, 1, 1]
    for path, picture, labels in zip(paths, pictures, found, strict=True):
        with Image.open(path) as image:
            width, height = image.size
        Image.new("L", (width, height)).save(tmp_path / "mask.png")
        case = Case("a", path, tmp_path / "mask.png", "train", "a", "")
        given, _ = read_case(case, 48, 3, 1)
        assert np.array_equal(given, picture.pixels)
        assert labels.shape == (height, width)
        assert labels.dtype == np.uint8
        with torch.no_grad():
            logits = model(normalise(torch.tensor(given[None])))
        smooth = F.interpolate(logits, (height, width), mode="bilinear", antialias=True)
        assert (labels == predict_labels(smooth)[0].numpy()).mean() > 0.999
        assert 0.05 < labels.mean() < 0.95
    square = predict_labels(model(normalise(torch.tensor(pictures[0].pixels[None]))))[0]
    assert np.array_equal(found[0], square)  # of the trained side: nothing is resized


def test_tiles_see_the_picture_at_its_own_resolution(tmp_path: Path) -> None:
    model = balanced(tmp_path / "m")
    predictor = Predictor(model, CPU, 64, tile=64)
    assert predictor.pictures == 1
    small = predictor.read(draw(tmp_path / "s.png", 50, 33), overlay=False)
    with Image.open(tmp_path / "s.png") as image:
        assert np.array_equal(small.pixels, np.asarray(image))
    steps, advance = advanced()
    with torch.no_grad():
        whole = predict_labels(model(normalise(torch.from_numpy(small.pixels[None]))))[0]
    assert np.array_equal(predictor.labels([small], advance)[0], whole)  # type: ignore[arg-type]
    large = predictor.read(draw(tmp_path / "l.png", 200, 150), overlay=True)
    labels = predictor.labels([large], advance)[0]  # type: ignore[arg-type]
    assert labels.shape == (150, 200)
    assert 0.05 < labels.mean() < 0.95
    assert sum(steps) == pytest.approx(2)
    assert large.small is not None
    assert large.small.shape == (300, 400, 3)


def test_grey_models_and_classes(tmp_path: Path) -> None:
    architecture = Architecture("small", norm="group", in_channels=1, num_classes=3)
    model, _ = open_model(write_model(tmp_path / "m", architecture, bias=3.0))
    for tile in (0, 32):
        predictor = Predictor(model, CPU, 32, tile)
        picture = predictor.read(draw(tmp_path / "a.png", 50, 40), overlay=True)
        assert picture.pixels.shape[-1] == 1
        assert (predictor.labels([picture], lambda _: None)[0] == 2).all()


def test_the_paper_shift_takes_square_tiles_alone(tmp_path: Path) -> None:
    architecture = Architecture("small", norm="group", shift="paper")
    predictor = Predictor(open_model(write_model(tmp_path / "m", architecture))[0], CPU, 64, tile=64)
    with pytest.raises(DataError, match=r"wide\.png is 80 x 40 pixels, .* give a --tile up to 40"):
        predictor.read(draw(tmp_path / "wide.png", 80, 40), overlay=False)
    large = predictor.read(draw(tmp_path / "large.png", 80, 70), overlay=False)
    assert predictor.labels([large], lambda _: None)[0].shape == (70, 80)


def test_batches_hold_so_many_pixels(tmp_path: Path) -> None:
    model, _ = open_model(write_model(tmp_path / "m"))
    assert [Predictor(model, CPU, size).pictures for size in (16, 128, 256, 1024, 4096)] == [64, 64, 16, 1, 1]


@pytest.mark.gpu
@pytest.mark.parametrize("tile", [0, 64])
def test_a_gpu_in_bf16_says_what_the_cpu_says(tmp_path: Path, tile: int) -> None:
    path = draw(tmp_path / "a.png", 300, 200)
    found = []
    for place in (CPU, Place(torch.device("cuda"), bf16=True, compile="graph")):
        predictor = Predictor(balanced(tmp_path / "m"), place, 64, tile)
        found.append(predictor.labels([predictor.read(path, overlay=False)], lambda _: None)[0])
    assert (found[0] == found[1]).mean() > 0.97
