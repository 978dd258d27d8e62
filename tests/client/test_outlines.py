import numpy as np
import pytest
from PIL import Image

from client.outlines import COLOURS, draw_outlines, thumbnail


@pytest.mark.parametrize(
    ("size", "drawn"),
    [
        ((64, 64), (256, 256)),
        ((100, 30), (300, 90)),
        ((300, 400), (300, 400)),
        ((3072, 1536), (768, 384)),
        ((9000, 1), (768, 1)),
    ],
)
def test_large_pictures_are_reduced_and_small_ones_enlarged(size: tuple[int, int], drawn: tuple[int, int]) -> None:
    small = thumbnail(Image.new("L", size, 90))
    assert small.shape == (drawn[1], drawn[0], 3)
    assert (small == 90).all()


def coloured(canvas: np.ndarray, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    return [tuple(place) for place in np.argwhere((canvas == colour).all(-1)).tolist()]


def test_each_class_has_its_colour_along_its_border() -> None:
    labels = np.zeros((300, 300), np.uint8)
    labels[50:150, 50:150] = 1
    labels[200:280, 100:250] = 2
    small = np.full((300, 300, 3), 90, np.uint8)
    canvas = draw_outlines(small, labels)
    assert (small == 90).all()
    first = np.array(coloured(canvas, COLOURS[0]))
    assert first.min(0).tolist() == [49, 49] or first.min(0).tolist() == [50, 50]
    assert 148 <= first.max() <= 150
    second = np.array(coloured(canvas, COLOURS[1]))
    assert np.abs(second.min(0) - [200, 100]).max() <= 1
    assert np.abs(second.max(0) - [279, 249]).max() <= 1
    assert (canvas[100, 100] == 90).all()  # inside
    assert (canvas[20, 20] == 90).all()  # outside


def test_a_single_pixel_of_a_large_picture_is_not_lost() -> None:
    labels = np.zeros((3000, 2000), np.uint8)
    labels[1500, 1000] = 7  # the colours begin again: orange
    canvas = draw_outlines(np.full((768, 512, 3), 90, np.uint8), labels)
    places = np.array(coloured(canvas, COLOURS[0]))
    assert len(places)
    assert np.abs(places - [384, 256]).max() <= 2


def test_nothing_found_leaves_the_picture_as_it_is() -> None:
    small = np.full((256, 256, 3), 90, np.uint8)
    assert np.array_equal(draw_outlines(small, np.zeros((64, 64), np.uint8)), small)
