import numpy as np
import torch
from scipy import ndimage

from urwkv.surface import edges, surface_distances


def test_an_outline_by_hand():
    region = torch.zeros(5, 6, dtype=torch.bool)
    region[1:4, 2:6] = True  # cut off by the image's right edge
    assert edges(region).int().tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 0, 0, 1],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0],
    ]


def test_distances_by_hand():
    first, second = np.zeros((5, 6), bool), np.zeros((5, 6), bool)
    first[0, 0] = True
    second[0, 2] = second[4, 3] = True
    there, back = surface_distances(first, second)
    assert there.tolist() == [2.0]
    assert back.tolist() == [2.0, 5.0]


def test_equals_a_distance_transform():
    torch.manual_seed(0)
    regions = torch.rand(2, 40, 30) > 0.6
    outlines = edges(regions).numpy()
    eroded = [ndimage.binary_erosion(region) for region in regions.numpy()]
    for outline, region, core in zip(outlines, regions.numpy(), eroded, strict=True):
        assert np.array_equal(outline, region & ~core)
    there, back = surface_distances(outlines[0], outlines[1])
    np.testing.assert_allclose(there, ndimage.distance_transform_edt(~outlines[1])[outlines[0]])
    np.testing.assert_allclose(back, ndimage.distance_transform_edt(~outlines[0])[outlines[1]])
