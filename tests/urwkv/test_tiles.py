import math

import pytest
import torch

from urwkv import URWKV
from urwkv.tiles import tiled_logits


class Noted:
    """A network that keeps the shapes of what it was given."""

    def __init__(self, network):
        self.network = network
        self.shapes = []

    def __call__(self, crops):
        self.shapes.append(tuple(crops.shape))
        return self.network(crops)


def blend(network, image, tile, batch=4):
    return torch.cat(list(tiled_logits(network, image, tile, batch)), dim=1)


def per_pixel(crops):
    """Two classes of logits that depend on the pixel alone."""
    return torch.stack([crops.sum(-1), crops[..., 0]], dim=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (32, 32), (33, 31), (47, 90), (200, 64), (65, 129)])
def test_what_depends_on_the_pixel_alone_comes_out_as_it_was(size):
    image = torch.rand(*size, 3)
    torch.testing.assert_close(blend(per_pixel, image, 32), per_pixel(image[None])[0], rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (20, 27), (32, 5)])
def test_an_image_that_fits_into_one_tile_is_one_crop(size):
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group").eval()

    @torch.no_grad()
    def network(crops):
        return model(crops.permute(0, 3, 1, 2))

    image = torch.randn(*size, 3)
    assert torch.equal(blend(network, image, 32), network(image[None])[0])


@pytest.mark.parametrize("length", [33, 40, 48, 49, 63, 64, 65, 100, 301])
@pytest.mark.parametrize("tile", [31, 32])
def test_tiles_that_contradict_each_other_leave_no_seam(length, tile):
    signs = []

    def network(crops):  # every other tile says -1 all over, the rest 1
        found = []
        for _ in crops:
            found.append(torch.full((1, *crops.shape[1:3]), (-1.0) ** len(signs)))
            signs.append(None)
        return torch.stack(found)

    blended = blend(network, torch.zeros(tile, length, 3), tile)
    assert len(signs) >= 2
    steps = blended.diff(dim=2).abs()
    assert steps.max() <= 2 * math.pi / tile
    assert blended.min() >= -1
    assert blended.max() <= 1
    signs.clear()
    turned = blend(network, torch.zeros(length, tile, 3), tile)
    torch.testing.assert_close(turned.transpose(1, 2), blended)


def test_at_a_tiles_edge_the_tile_counts_for_nothing():
    def network(crops):  # a border of one wild pixel around every tile
        border = torch.ones(1, 1, *crops.shape[1:3])
        border[..., 1:-1, 1:-1] = 0
        return 1000 * border.expand(len(crops), -1, -1, -1)

    inside = blend(network, torch.zeros(96, 96, 3), 32)[:, 1:-1, 1:-1]
    assert inside.max() <= 2 * 1000 * math.sin(math.pi / 64) ** 2  # 0.24 % along either axis


def test_a_real_network_on_a_picture_of_many_tiles_has_no_seams():
    torch.manual_seed(0)
    model = URWKV(variant="small", norm="group").eval()
    grey = torch.linspace(-2, 2, 192).expand(160, 192) + 0.05 * torch.randn(160, 192)
    image = grey[..., None].expand(-1, -1, 3)  # from black to white: every tile is normalised to its own grey

    @torch.no_grad()
    def network(crops):
        return model(crops.permute(0, 3, 1, 2))

    blended = blend(network, image, 64)[0, :64]
    cut = torch.cat([network(image[None, :64, left : left + 64])[0, 0] for left in (0, 64, 128)], dim=1)
    inner = slice(16, -16)  # at the image's own border the network pads
    jump = cut[:, inner].diff(dim=1).mean(0).abs().max()
    step = blended[:, inner].diff(dim=1).mean(0).abs().max()
    assert step < jump / 4


def test_batches_and_bands_bound_the_memory():
    network = Noted(per_pixel)
    image = torch.rand(100, 203, 3)
    bands = tiled_logits(network, image, 32, 5)
    first = next(bands)
    assert first.shape == (2, 14, 203)  # 6 bands of 32 over 100 rows, 13.6 apart
    assert network.shapes == [(5, 32, 32, 3), (5, 32, 32, 3), (2, 32, 32, 3)]
    rows = [first.shape[1], *(band.shape[1] for band in bands)]
    assert sum(rows) == 100
    assert max(rows) <= 32
    assert len(network.shapes) == 6 * 3
