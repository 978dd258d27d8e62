"""What stands around the linear layers of a map's scans, in Triton: see `urwkv.ops.scans_triton`, which launches it.

A map is H W pixels of C = 4 Q channels. All is computed where the map has it: a program takes some pixels and some
channels of one quarter, and knows for each scan the token that a pixel is, and the pixel that is the other token of
it, its neighbour on the scan's own grid. With (i, j) the row and the column of a token there, and (r, c) those of its
pixel:

    scan                     grid      i    j           token i (grid's width) + j
    0  rows                  H x W     r    c           r W + c
    1  rows, flipped         H x W     r    W - 1 - c   r W + W - 1 - c
    2  columns               W x H     c    r           c H + r
    3  columns, flipped      W x H     c    H - 1 - r   c H + H - 1 - r

By quarters of the channels the other token is that at (i, j - 1), (i, j + 1), (i - 1, j) and (i + 1, j). A step along
j is one along c in the scans of rows and along r in those of columns, and goes the other way where the scan is
flipped; a step along i is one along r or c, never flipped. So the other pixel (r', c') is

    quarter   scan 0     scan 1     scan 2     scan 3
    0         r, c - 1   r, c + 1   r - 1, c   r + 1, c
    1         r, c + 1   r, c - 1   r + 1, c   r - 1, c
    2         r - 1, c   r - 1, c   r, c - 1   r, c - 1
    3         r + 1, c   r + 1, c   r, c + 1   r, c + 1

which is nothing, 0, where it lies beyond the map: there the scan's own grid ends, too. Backward a pixel is the other
one of exactly one, or of none: of that one step in the opposite direction.

Two orders are the scans 0 and 2, and one is the scan 0. Inside all is float32. Sums are taken by blocks of pixels
whose number follows from the shape alone, without atomics, so results repeat.
"""

import triton
import triton.language as tl

from urwkv.ops.triton_math import invert


@triton.jit
def _place(Q, BLOCK: tl.constexpr):
    """Which block of pixels, which sample, which quarter and channels of it: neighbours take the same pixels."""
    across = tl.cdiv(Q, BLOCK)
    part = tl.program_id(0) % (4 * across)
    quarter = part // across
    channel = (part % across) * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0) // (4 * across), tl.program_id(1), quarter, quarter * Q + channel, channel < Q


@triton.jit
def _pixels(first, last, W, inside, ROWS: tl.constexpr):
    """The next pixels, (ROWS, 1), their rows and columns, and which of their numbers there are before `last`."""
    pixel = first + tl.arange(0, ROWS)[:, None]
    return pixel, pixel // W, pixel % W, (pixel < last) & inside


@triton.jit
def _step(quarter, SCAN: tl.constexpr):
    """How many rows, and how many columns, a pixel's other one lies further."""
    along = quarter < 2
    step = 2 * (quarter % 2) - 1
    if SCAN % 2 == 1:
        step = tl.where(along, -step, step)
    on_rows = SCAN < 2
    return tl.where(along == on_rows, 0, step), tl.where(along == on_rows, step, 0)


@triton.jit
def _token(row, column, H, W, SCAN: tl.constexpr):
    """The token of a scan that a pixel is."""
    if SCAN == 0:
        token = row * W + column
    elif SCAN == 1:
        token = row * W + (W - 1 - column)
    elif SCAN == 2:
        token = column * H + row
    else:
        token = column * H + (H - 1 - row)
    return token


@triton.jit
def _within(row, column, H, W):
    return (row >= 0) & (row < H) & (column >= 0) & (column < W)


@triton.jit
def mix(
    z_ptr, mu_0_ptr, mu_1_ptr, mu_2_ptr, x_0_ptr, x_1_ptr, x_2_ptr, H, W, Q,
    NUMBER: tl.constexpr, SCANS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """x_i = other + mu_i (z - other) for each scan, (B, SCANS, T, C); the third only if NUMBER is 3."""
    block, n, quarter, channel, inside = _place(Q, BLOCK)
    C = 4 * Q
    mu_0 = tl.load(mu_0_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    mu_1 = tl.load(mu_1_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    mu_2 = tl.load(mu_2_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    pixel, row, column, there = _pixels(block * ROWS, H * W, W, inside, ROWS)
    from_ = z_ptr + n.to(tl.int64) * H * W * C
    z = tl.load(from_ + pixel * C + channel, mask=there, other=0.0).to(tl.float32)
    for scan in tl.static_range(0, 4, 4 // SCANS):
        down, right = _step(quarter, scan)
        has_other = there & _within(row + down, column + right, H, W)
        at = from_ + (pixel + down * W + right) * C + channel
        other = tl.load(at, mask=has_other, other=0.0).to(tl.float32)
        change = z - other
        begin = (n * SCANS + scan * SCANS // 4).to(tl.int64) * H * W * C
        to = _token(row, column, H, W, scan) * C + channel
        kind = x_0_ptr.dtype.element_ty
        tl.store(x_0_ptr + begin + to, (other + mu_0 * change).to(kind), mask=there)
        tl.store(x_1_ptr + begin + to, (other + mu_1 * change).to(kind), mask=there)
        if NUMBER == 3:
            tl.store(x_2_ptr + begin + to, (other + mu_2 * change).to(kind), mask=there)


@triton.jit
def _given(dx_ptr, own, others, there, is_other, mu, change):
    """What the gradient of one mixture gives to the map, and to its mu."""
    g = tl.load(dx_ptr + own, mask=there, other=0.0).to(tl.float32)
    g_other = tl.load(dx_ptr + others, mask=is_other, other=0.0).to(tl.float32)
    return mu * g + (1.0 - mu) * g_other, g * change


@triton.jit
def mix_backward(
    z_ptr, mu_0_ptr, mu_1_ptr, mu_2_ptr, dx_0_ptr, dx_1_ptr, dx_2_ptr, dz_ptr, parts, H, W, Q, span,
    NUMBER: tl.constexpr, SCANS: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The gradient of the map; of each block of `span` pixels the sums of dx_i (z - other), (B, blocks, NUMBER, C).

    A pixel has the gradients of its own tokens, mu_i times, and of the tokens whose other one it is, 1 - mu_i times.
    """
    block, n, quarter, channel, inside = _place(Q, BLOCK)
    C = 4 * Q
    mu_0 = tl.load(mu_0_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    mu_1 = tl.load(mu_1_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    mu_2 = tl.load(mu_2_ptr + channel, mask=inside, other=0.0).to(tl.float32)
    dmu_0, dmu_1 = tl.zeros((ROWS, BLOCK), tl.float32), tl.zeros((ROWS, BLOCK), tl.float32)
    dmu_2 = tl.zeros((ROWS, BLOCK), tl.float32)
    first = block * span
    last = tl.minimum(first + span, H * W)
    map_ = n.to(tl.int64) * H * W * C
    for start in range(first, last, ROWS):
        pixel, row, column, there = _pixels(start, last, W, inside, ROWS)
        z = tl.load(z_ptr + map_ + pixel * C + channel, mask=there, other=0.0).to(tl.float32)
        dz = tl.zeros((ROWS, BLOCK), tl.float32)
        for scan in tl.static_range(0, 4, 4 // SCANS):
            down, right = _step(quarter, scan)
            has_other = there & _within(row + down, column + right, H, W)
            at = z_ptr + map_ + (pixel + down * W + right) * C + channel
            change = z - tl.load(at, mask=has_other, other=0.0).to(tl.float32)
            begin = (n * SCANS + scan * SCANS // 4).to(tl.int64) * H * W * C
            own = begin + _token(row, column, H, W, scan) * C + channel
            others = begin + _token(row - down, column - right, H, W, scan) * C + channel
            is_other = there & _within(row - down, column - right, H, W)
            to_z, to_mu = _given(dx_0_ptr, own, others, there, is_other, mu_0, change)
            dz += to_z
            dmu_0 += to_mu
            to_z, to_mu = _given(dx_1_ptr, own, others, there, is_other, mu_1, change)
            dz += to_z
            dmu_1 += to_mu
            if NUMBER == 3:
                to_z, to_mu = _given(dx_2_ptr, own, others, there, is_other, mu_2, change)
                dz += to_z
                dmu_2 += to_mu
        tl.store(dz_ptr + map_ + pixel * C + channel, dz.to(dz_ptr.dtype.element_ty), mask=there)
    at = parts + (n * tl.cdiv(H * W, span) + block) * NUMBER * C + channel
    tl.store(at, tl.sum(dmu_0, 0), mask=inside)
    tl.store(at + C, tl.sum(dmu_1, 0), mask=inside)
    if NUMBER == 3:
        tl.store(at + 2 * C, tl.sum(dmu_2, 0), mask=inside)


@triton.jit
def _open(r):
    """The sigmoid."""
    return invert(1.0 + tl.exp(-r))


@triton.jit
def gate(
    r_ptr, y_ptr, out_ptr, H, W, Q, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """The average over the four scans of sigmoid(r) y, where the map has it: (B, H, W, C)."""
    block, n, _, channel, inside = _place(Q, BLOCK)
    C = 4 * Q
    pixel, row, column, there = _pixels(block * ROWS, H * W, W, inside, ROWS)
    total = tl.zeros((ROWS, BLOCK), tl.float32)
    for scan in tl.static_range(4):
        at = (n * 4 + scan).to(tl.int64) * H * W * C + _token(row, column, H, W, scan) * C + channel
        r = tl.load(r_ptr + at, mask=there, other=0.0).to(tl.float32)
        total += _open(r) * tl.load(y_ptr + at, mask=there, other=0.0).to(tl.float32)
    at = n.to(tl.int64) * H * W * C + pixel * C + channel
    tl.store(out_ptr + at, (total * 0.25).to(out_ptr.dtype.element_ty), mask=there)


@triton.jit
def gate_backward(
    r_ptr, y_ptr, dout_ptr, dr_ptr, dy_ptr, H, W, Q, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """With s = sigmoid(r) and g a quarter of the average's gradient: dy = g s, dr = g y s (1 - s)."""
    block, n, _, channel, inside = _place(Q, BLOCK)
    C = 4 * Q
    pixel, row, column, there = _pixels(block * ROWS, H * W, W, inside, ROWS)
    at = n.to(tl.int64) * H * W * C + pixel * C + channel
    g = tl.load(dout_ptr + at, mask=there, other=0.0).to(tl.float32) * 0.25
    for scan in tl.static_range(4):
        at = (n * 4 + scan).to(tl.int64) * H * W * C + _token(row, column, H, W, scan) * C + channel
        share = _open(tl.load(r_ptr + at, mask=there, other=0.0).to(tl.float32))
        y = tl.load(y_ptr + at, mask=there, other=0.0).to(tl.float32)
        dy = g * share
        tl.store(dy_ptr + at, dy.to(dy_ptr.dtype.element_ty), mask=there)
        tl.store(dr_ptr + at, (dy * y * (1.0 - share)).to(dr_ptr.dtype.element_ty), mask=there)
