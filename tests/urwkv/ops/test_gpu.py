"""How wide tiles of maps are."""

import pytest

from urwkv.ops.gpu import width_of


@pytest.mark.parametrize(
    ("channels", "width"), [(1, 1), (3, 4), (7, 8), (8, 8), (12, 16), (24, 8), (65, 64), (160, 32), (256, 64)]
)
def test_a_tile_divides_the_channels_or_holds_them(channels, width):
    assert width_of(channels) == width
