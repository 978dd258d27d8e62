"""The gradient of a convolution's filters for each sample by itself: by matrix products where those are fast.

All sums are of at least float32, whatever precision the forward pass had.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

from urwkv.ops.doubling import gathered
from urwkv.ops.grouped import NARROWEST

SUMMED = 4096
"""Pixels that a GPU's matrix units sum in one go."""

ALIGNED = 8
"""Channels are filled up to a multiple of it, so that pixels begin where a GPU reads fast."""

WIDEST, MOST = 128, 4
"""Numbers that a row of a matrix has at most where maps are narrow, and pixels."""


def filters(layer: nn.Conv2d, maps: Tensor, backward: Tensor, *, doubled: bool = False) -> Tensor:
    """(B, *filter): matrix products where those are fast; else the samples become groups of one convolution.

    Its weight gradient is then one a sample, and costs what the plain one does. Opacus's rule unfolds the input, k^2
    times its memory, forms the products across groups too, only to drop them, and misreads maps that lie channels
    last.

    Args:
        layer: of what `client.privacy.hooks.check_network` lets through.
        maps: (B, cin, H, W), what went in.
        backward: (B, cout, H', W'), the loss's gradient by what came out.
        doubled: the layer had its maps doubled first, as `urwkv.ops.doubling.doubled_convolution` does.
    """
    if len(maps) == 0:
        return backward.new_zeros((0, *layer.weight.shape), dtype=wide(backward))
    exact = _is_exact_in_bf16(maps, backward)
    if doubled:
        return doubled_products(maps, backward) if exact else _doubled_groups(maps, backward)
    if _is_product(layer) or (exact and _keeps_sides(layer)):
        return products(layer, maps, backward)
    shape = (len(maps) * layer.out_channels, *layer.weight.shape[1:])
    form = layer.stride, layer.padding, layer.dilation, len(maps) * layer.groups
    grads: Tensor = conv2d_weight(_one_map(maps), shape, _one_map(backward), *form)  # type: ignore[no-untyped-call]
    return grads.view(len(maps), *layer.weight.shape)


def _doubled_groups(maps: Tensor, backward: Tensor) -> Tensor:
    """By the convolution with stride 2 that the doubled one is the transpose of."""
    samples, cin, cout = len(maps), maps.shape[1], backward.shape[1]
    grads: Tensor = conv2d_weight(  # type: ignore[no-untyped-call]
        _one_map(backward), (samples * cin, cout, 4, 4), _one_map(maps), stride=2, padding=1, groups=samples
    )
    return gathered(grads.view(samples, cin, cout, 4, 4)).transpose(1, 2).contiguous()


def _one_map(maps: Tensor) -> Tensor:
    """(B, C, H, W) as one map with the channels of all samples, (1, B C, H, W), of at least float32."""
    laid = maps.to(wide(maps), memory_format=torch.contiguous_format).contiguous()  # one pass; `to` may do nothing
    return laid.view(1, -1, *maps.shape[2:])


def products(layer: nn.Conv2d, maps: Tensor, backward: Tensor) -> Tensor:
    """(B, *filter): for each tap of the filter the sum over the pixels of dy x^T, x being what lies under that tap.

    Where channels are few all of them make one product, groups or not, whose other blocks are dropped; and filters of
    three columns take several neighbouring pixels as one (`_taps_of_rows`).

    Args:
        layer: one whose maps keep their sides.
        maps, backward: (B, cin, H, W) and (B, cout, H, W).
    """
    maps, backward = _as_multiplied(maps, backward)
    samples, (height, width), groups = len(maps), layer.kernel_size, layer.groups
    if _is_product(layer):
        dy, x = (m.permute(0, 2, 3, 1).flatten(0, 2) for m in (backward, maps))
        return _whole(_multiplied(dy, x, maps.shape[2] * maps.shape[3]), samples)[..., None, None]
    channels = layer.out_channels, layer.in_channels
    cout, cin = (number // groups for number in channels)
    narrow = max(cout, cin) < NARROWEST
    step = max(1, min(MOST, WIDEST // max(channels))) if narrow and width == 3 else 1
    border = _Border(maps.shape[2], maps.shape[3], height // 2, width // 2, step)
    dy, x = (border.around(m.permute(0, 2, 3, 1)) for m in (backward, maps))
    if not narrow:
        own = (m[:, :number].chunk(groups, 1) for m, number in zip((dy, x), channels, strict=True))
        sums = [_taps(border, y, z, height, width) for y, z in zip(*own, strict=True)]
        grads = torch.cat([_whole(each, samples) for each in sums], 1)
        return grads.view(samples, *layer.weight.shape)
    taps = _taps_of_rows(border, dy, x, height) if step > 1 else _taps(border, dy, x, height, width)
    grads = _whole(taps, samples)[:, : channels[0], : channels[1]]
    blocks = grads.unflatten(1, (groups, cout)).unflatten(3, (groups, cin))  # type: ignore[no-untyped-call]
    return blocks.diagonal(0, 1, 3).movedim(-1, 1).reshape(samples, *layer.weight.shape)


def _taps(border: "_Border", dy: Tensor, x: Tensor, height: int, width: int) -> Tensor:
    """Of maps with borders, (pixels, cout) and (pixels, cin): the sums of each tap, (B parts, cout, cin, taps)."""
    under = (border.inside(x, i, j) for i, j in itertools.product(_reach(height), _reach(width)))
    return torch.stack([_multiplied(border.inside(dy), each, border.pixels) for each in under], -1)


def _taps_of_rows(border: "_Border", dy: Tensor, x: Tensor, height: int) -> Tensor:
    """The same of filters with three columns, `border.step` neighbouring pixels being one row of x and of dy.

    Of what lies left and right of a row the first and the last pixel of dy see one pixel each. Maps are read half as
    often as by each tap by itself, and matrix units get as many times the numbers.
    """
    (cout, cin), step, rows = (dy.shape[1], x.shape[1]), border.step, border.pixels // border.step
    ours = border.inside(dy).view(-1, step * cout)
    lines: list[list[Tensor]] = [[], [], []]
    for i in _reach(height):
        left, own, right = (border.inside(x, i, j).view(-1, step * cin) for j in (-1, 0, 1))
        lines[0].append(_multiplied(ours[:, :cout], left[:, :cin], rows))
        lines[1].append(_multiplied(ours, own, rows))
        lines[2].append(_multiplied(ours[:, -cout:], right[:, -cin:], rows))
    before, within, after = (torch.stack(line, -1) for line in lines)
    pairs = within.unflatten(1, (step, cout)).unflatten(3, (step, cin))  # type: ignore[no-untyped-call]
    left, own, right = (pairs.diagonal(apart, 1, 3).sum(-1) for apart in (-1, 0, 1))
    return torch.stack([left + before, own, right + after], -1).flatten(3)


def doubled_products(maps: Tensor, backward: Tensor) -> Tensor:
    """(B, cout, cin, 3, 3) of a convolution that had its maps doubled.

    The four pixels that each pixel became are channels here. So x is read at its own size, and each of the 16 taps of
    the transposed convolution is a tap of 3 x 3 for one of the four.

    Args:
        maps, backward: (B, cin, H, W) and (B, cout, 2H, 2W).
    """
    maps, backward = _as_multiplied(maps, backward)
    samples, cin, rows, columns = maps.shape
    cout, border = backward.shape[1], _Border(rows, columns, 1, 1, 1)
    fours = backward.permute(0, 2, 3, 1).reshape(samples, rows, 2, columns, 2, cout).transpose(2, 3)
    dy, x = border.around(fours), border.around(maps.permute(0, 2, 3, 1))
    blocks: dict[tuple[tuple[int, int], ...], Tensor] = {}
    for i, j in itertools.product(_SEEN, repeat=2):
        seen = [2 * a + b for a, b in itertools.product(_SEEN[i], _SEEN[j])]
        ours = border.inside(dy)[:, seen[0] * cout : (seen[-1] + 1) * cout]
        sums = _multiplied(ours, border.inside(x, i, j)[:, :cin], border.pixels)
        for four in seen:
            blocks[(four // 2, i), (four % 2, j)] = sums[:, (four - seen[0]) * cout :][:, :cout]
    taps = torch.stack([blocks[both] for both in itertools.product(_TAPS, repeat=2)], -1)
    return gathered(_whole(taps, samples).unflatten(-1, (4, 4)))  # type: ignore[no-untyped-call]


_SEEN = {-1: (0,), 0: (0, 1), 1: (1,)}
"""Along one side, by how far on a pixel of x lies: which of the two that a pixel became see it."""

_TAPS = ((1, 1), (0, 0), (1, 0), (0, -1))
"""Along one side, of each tap of the transposed convolution: which of the two it makes, and how far on x lies."""


@dataclass(frozen=True)
class _Border:
    """Zeros around the maps of each sample, so wide that no tap sees another sample's numbers, were it only times 0.

    Pixels are counted through, row after row and sample after sample: then what lies under a tap is the same map some
    pixels further on, and is read where it is. Beyond a map's edge dy is 0.

    Attributes:
        rows, columns: of the maps.
        up, left: the border's width.
        step: rows with their border are a multiple of so many pixels.
    """

    rows: int
    columns: int
    up: int
    left: int
    step: int

    @property
    def row(self) -> int:
        return -(-(self.columns + 2 * self.left) // self.step) * self.step

    @cached_property
    def pixels(self) -> int:
        """Of a sample: with as many rows of zeros more as let few parts of one size make it up."""
        lengths = (rows * self.row for rows in itertools.count(self.rows + 2 * self.up))
        return next(n for n in lengths if _parts(n // self.step) <= 1.25 * -(-n // self.step // SUMMED))

    @property
    def _before(self) -> int:
        """Pixels of zeros before the first sample, and after the last."""
        return self.up * self.row + self.left

    def around(self, maps: Tensor) -> Tensor:
        """Maps (B, H, W, ...) as pixels (_, C), C being all that follows, filled up to a multiple of ALIGNED."""
        samples, channels = len(maps), maps[0, 0, 0].numel()
        laid = maps.new_zeros((2 * self._before + samples * self.pixels, -(-channels // ALIGNED) * ALIGNED))
        each = self.inside(laid)[:, :channels].view(samples, -1, self.row, channels)
        own = each[:, self.up : self.up + self.rows, self.left : self.left + self.columns]
        own.unflatten(-1, maps.shape[3:]).copy_(maps)  # type: ignore[no-untyped-call]
        return laid

    def inside(self, laid: Tensor, i: int = 0, j: int = 0) -> Tensor:
        """The pixels i rows and j columns on from those of all samples and their borders."""
        first = self._before + i * self.row + j
        return laid[first : first + len(laid) - 2 * self._before]


def _reach(side: int) -> range:
    return range(-(side // 2), side // 2 + 1)


def _parts(pixels: int) -> int:
    """The fewest parts of one size, at most SUMMED pixels each, that make up so many pixels."""
    return next(n for n in range(-(-pixels // SUMMED), pixels + 1) if pixels % n == 0)


def _multiplied(dy: Tensor, x: Tensor, pixels: int) -> Tensor:
    """Of rows (B pixels, cout) and (B pixels, cin) the sums of dy x^T over parts of samples, (B parts, cout, cin).

    Matrix units sum more coarsely than float32 has digits, which over more than SUMMED pixels would show.
    """
    parts = _parts(pixels)
    dy, x = (rows.unflatten(0, (-1, pixels // parts)) for rows in (dy, x))  # type: ignore[no-untyped-call]
    both = dy.transpose(1, 2), x
    return torch.bmm(*both) if dy.dtype == wide(dy) else torch.bmm(*both, out_dtype=wide(dy))


def _whole(sums: Tensor, samples: int) -> Tensor:
    """The sums over the parts of each sample, (B, ...)."""
    if len(sums) == samples:
        return sums
    whole: Tensor = sums.unflatten(0, (samples, -1)).sum(1)  # type: ignore[no-untyped-call]
    return whole


def over_pixels(backward: Tensor) -> Tensor:
    """(B, C): each sample's gradient of what is added to all pixels of its map, from that of the map (B, C, H, W)."""
    return backward.sum(dim=(2, 3), dtype=wide(backward))


def over_rows(x: Tensor, dy: Tensor) -> Tensor:
    """Of rows (B, T, cin) and (B, T, cout) the sum of dy x^T over each sample's, (B, cout, cin).

    They are multiplied as the forward pass multiplied them, in the dtype of dy.
    """
    if len(x) == 0:
        return dy.new_zeros((0, dy.shape[-1], x.shape[-1]), dtype=wide(dy))
    x, dy = _as_multiplied(x.to(dy.dtype), dy)
    return _whole(_multiplied(dy.flatten(0, 1), x.flatten(0, 1), x.shape[1]), len(x))


def _as_multiplied(*maps: Tensor) -> tuple[Tensor, ...]:
    return maps if _is_exact_in_bf16(*maps) else tuple(widen(m) for m in maps)


def _is_exact_in_bf16(*maps: Tensor) -> bool:
    """Whether a GPU multiplies these without loss, and sums in float32."""
    return all(m.dtype == torch.bfloat16 and m.device.type == "cuda" for m in maps)


def _is_product(layer: nn.Conv2d) -> bool:
    return layer.kernel_size == (1, 1) and layer.groups == 1 and _keeps_sides(layer)


def _keeps_sides(layer: nn.Conv2d) -> bool:
    """Whether the output is as large as the input, and the filters are no depthwise ones."""
    reach = tuple(side // 2 for side in layer.kernel_size)
    odd = all(side % 2 for side in layer.kernel_size)
    plain = layer.stride == layer.dilation == (1, 1) and layer.padding == reach
    return odd and plain and layer.in_channels > layer.groups


def widen(x: Tensor) -> Tensor:
    """As it is, or in float32."""
    return x.to(wide(x))


def wide(x: Tensor) -> torch.dtype:
    """The tensor's dtype, or float32 where that is narrower."""
    return torch.promote_types(x.dtype, torch.float32)
