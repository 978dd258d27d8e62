"""BatchNorm and GELU over the rows of a channels_last map, in Numba: see `urwkv.ops.norm_numba`, which starts them.

Compiled by LLVM when this file is imported: a few seconds, once where Numba may keep what it compiled (beside this
file, or in the user's cache), else in each process. All of it is in this file, whose changes Numba notices.

A map is P rows of C channels, its pixels; `order` is 1: norm then GELU, 2: GELU then norm. With s the value that
the norm is given, h = (s - mean) rstd and z = h weight + bias, the gradient g of z reaches s as

    ds = rstd (weight g - mean(weight g) - h mean(weight g h)).

Threads take blocks of rows, whose number follows from the shape alone, so results repeat whatever the threads. Within
a block sums are float32, a sum for every place of a tile of whole rows; over places and blocks they are float64.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
from numba import carray, cfunc, float64, from_dtype, njit, types
from numba.extending import intrinsic

log = logging.getLogger(__name__)

NORM_GELU, GELU_NORM = 1, 2

SIZES = ("numbers", "channels", "tile", "span", "blocks")
MAPS = ("x", "z", "y", "dy", "dx")  # z = GELU(x) where GELU comes first, else x
VECTORS = ("weight", "bias", "mean", "rstd", "running_mean", "running_var", "dweight", "dbias")
ROOM = "room"  # (blocks + 1, 3, tile) to work in
JOB = np.dtype(
    [(name, np.int64) for name in (*SIZES, *MAPS, *VECTORS, ROOM)] + [("eps", np.float64), ("momentum", np.float64)]
)
"""What a team of threads is given: sizes, addresses of float32 tensors, numbers."""

# The normal distribution's share below x is 1/2 + c P(c^2) / Q(c^2), c = x within +-5.4: off by less than 4e-8. The
# derivative of GELU, share + x density, likewise within +-5.8: off by less than 1.2e-7. Both are 0 below
# that, and fitted for the least of the largest error; float32 adds what it adds to torch's, see the tests.
_f = np.float32
SHARE_END, SLOPE_END = _f(5.4), _f(5.8)
A0, A1, A2, A3, A4, A5 = map(_f, (0.39894223, 0.033372298, 0.0046508554, 1.6432241e-4, 6.3600264e-6, 2.3386692e-8))
B1, B2, B3, B4, B5 = map(_f, (0.25031802, 0.028378727, 0.0018589855, 7.240042e-5, 1.2165902e-6))
D0, D1, D2, D3, D4 = map(_f, (0.7978852, -0.031701334, 0.014207589, 1.0423771e-5, 3.5016947e-5))
D5, D6 = map(_f, (1.6653435e-7, 1.0061753e-10))
E1, E2, E3, E4, E5 = map(_f, (0.2936083, 0.04065997, 0.0034681276, 1.8809029e-4, 8.433147e-6))
HALF, ONE, ZERO = _f(0.5), _f(1), _f(0)

LANGUAGE = {"fastmath": {"contract", "nsz"}, "error_model": "numpy"}
inlined = njit(forceinline=True, **LANGUAGE)  # so that `order` is a constant in them

_me = types.ExternalFunction("omp_get_thread_num", types.int32())
_threads = types.ExternalFunction("omp_get_num_threads", types.int32())
_wait = types.ExternalFunction("GOMP_barrier", types.void())


@intrinsic
def _at(_: Any, address: Any) -> Any:
    """The address of a float32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

    return types.CPointer(types.float32)(types.int64), code


@inlined
def share(x):
    c = x if x < SHARE_END else SHARE_END
    c = c if c > -SHARE_END else -SHARE_END
    u = c * c
    above = A0 + u * (A1 + u * (A2 + u * (A3 + u * (A4 + u * A5))))
    near = HALF + c * (above / (ONE + u * (B1 + u * (B2 + u * (B3 + u * (B4 + u * B5))))))
    return ZERO if x < -SHARE_END else near  # what is left of `near` there would be multiplied by x, however large


@inlined
def slope(x):
    c = x if x < SLOPE_END else SLOPE_END
    c = c if c > -SLOPE_END else -SLOPE_END
    u = c * c
    above = D0 + u * (D1 + u * (D2 + u * (D3 + u * (D4 + u * (D5 + u * D6)))))
    near = HALF + c * (above / (ONE + u * (E1 + u * (E2 + u * (E3 + u * (E4 + u * E5))))))
    return ZERO if x < -SLOPE_END else near


@inlined
def _room(job, block):
    """Three tiles of the block's own; those of block `blocks` are everybody's."""
    room = carray(_at(job.room), ((job.blocks + 1) * 3 * job.tile,))
    a, tile = block * 3 * job.tile, job.tile
    b, c = a + tile, a + 2 * tile
    return room[a:b], room[b:c], room[c : c + tile]


@inlined
def _totals(job, channel):
    """What all blocks have summed for a channel in their last two tiles, in float64."""
    first = second = 0.0
    for block in range(job.blocks):
        _, firsts, seconds = _room(job, block)
        for j in range(channel, job.tile, job.channels):
            first += firsts[j]
            second += seconds[j]
    return first, second


@inlined
def _moments(job, block, order):
    """The sums of s - a and of its squares, a being the first row, so that a mean far from zero cancels nothing."""
    x, z = carray(_at(job.x), (job.numbers,)), carray(_at(job.z), (job.numbers,))
    about, sums, squares = _room(job, block)
    for row in range(0, job.tile, job.channels):
        for c in range(job.channels):
            about[row + c] = x[c] * share(x[c]) if order == GELU_NORM else x[c]
    sums[:], squares[:] = ZERO, ZERO
    end = min((block + 1) * job.span, job.numbers)
    for begin in range(block * job.span, end, job.tile):
        there = min(begin + job.tile, end)
        xs, zs = x[begin:there], z[begin:there]
        for j in range(xs.size):
            s = xs[j]
            if order == GELU_NORM:
                s = s * share(s)
                zs[j] = s
            away = s - about[j]
            sums[j] += away
            squares[j] += away * away


@inlined
def _finish_moments(job):
    """Mean and 1 / sqrt(variance + eps); the running ones move as torch moves them; a tile of z = s scale + shift."""
    channels = job.channels
    mean, rstd = carray(_at(job.mean), (channels,)), carray(_at(job.rstd), (channels,))
    moving_mean, moving_var = carray(_at(job.running_mean), (channels,)), carray(_at(job.running_var), (channels,))
    about, _, _ = _room(job, 0)
    count = job.numbers // channels
    for c in range(channels):
        total, total_squares = _totals(job, c)
        away = total / count
        variance = max(total_squares / count - away * away, 0.0)
        mean[c], rstd[c] = about[c] + away, 1.0 / np.sqrt(variance + job.eps)
        moving_mean[c] += job.momentum * (about[c] + away - moving_mean[c])
        moving_var[c] += job.momentum * (variance * count / (count - 1) - moving_var[c])
    _line(job)


@inlined
def _line(job):
    """Tiles of scale and shift, z = s scale + shift, and of the mean."""
    channels = job.channels
    weight, bias = carray(_at(job.weight), (channels,)), carray(_at(job.bias), (channels,))
    mean, rstd = carray(_at(job.mean), (channels,)), carray(_at(job.rstd), (channels,))
    scale, shift, about = _room(job, job.blocks)
    for row in range(0, job.tile, channels):
        for c in range(channels):
            about[row + c], scale[row + c] = mean[c], rstd[c] * weight[c]
            shift[row + c] = bias[c] - mean[c] * (rstd[c] * weight[c])


@inlined
def _apply(job, block, order):
    s, y = carray(_at(job.z if order == GELU_NORM else job.x), (job.numbers,)), carray(_at(job.y), (job.numbers,))
    scale, shift, _ = _room(job, job.blocks)
    end = min((block + 1) * job.span, job.numbers)
    for begin in range(block * job.span, end, job.tile):
        there = min(begin + job.tile, end)
        ss, ys = s[begin:there], y[begin:there]
        for j in range(ss.size):
            z = ss[j] * scale[j] + shift[j]
            ys[j] = z * share(z) if order == NORM_GELU else z


@inlined
def _forward(jobs, order):
    job = carray(jobs, (1,))[0]
    for block in range(_me(), job.blocks, _threads()):
        _moments(job, block, order)
    _wait()
    if _me() == 0:
        _finish_moments(job)
    _wait()
    for block in range(_me(), job.blocks, _threads()):
        _apply(job, block, order)


@inlined
def _sums(job, block, order):
    """The sums of g and of g (s - mean); where GELU comes last, g is written where dx will be."""
    s, dy = carray(_at(job.z if order == GELU_NORM else job.x), (job.numbers,)), carray(_at(job.dy), (job.numbers,))
    dx = carray(_at(job.dx), (job.numbers,))
    scale, shift, about = _room(job, job.blocks)
    _, gs, ghs = _room(job, block)
    gs[:], ghs[:] = ZERO, ZERO
    end = min((block + 1) * job.span, job.numbers)
    for begin in range(block * job.span, end, job.tile):
        there = min(begin + job.tile, end)
        ss, dys, dxs = s[begin:there], dy[begin:there], dx[begin:there]
        for j in range(ss.size):
            g = dys[j]
            if order == NORM_GELU:
                g = g * slope(ss[j] * scale[j] + shift[j])
                dxs[j] = g
            gs[j] += g
            ghs[j] += g * (ss[j] - about[j])


@inlined
def _finish_sums(job):
    """dweight, dbias, and tiles of ds = g to_g + s to_s + rest."""
    channels = job.channels
    weight = carray(_at(job.weight), (channels,))
    mean, rstd = carray(_at(job.mean), (channels,)), carray(_at(job.rstd), (channels,))
    dweight, dbias = carray(_at(job.dweight), (channels,)), carray(_at(job.dbias), (channels,))
    to_g, to_s, rest = _room(job, job.blocks)
    count = job.numbers // channels
    for c in range(channels):
        g, gh = _totals(job, c)
        gh *= rstd[c]
        dweight[c], dbias[c] = gh, g
        scale = float64(rstd[c]) * weight[c]
        by_s = -scale * rstd[c] * gh / count
        for j in range(c, job.tile, channels):
            to_g[j], to_s[j], rest[j] = scale, by_s, -scale * g / count - by_s * mean[c]


@inlined
def _apply_backward(job, block, order):
    x, s = carray(_at(job.x), (job.numbers,)), carray(_at(job.z if order == GELU_NORM else job.x), (job.numbers,))
    dy, dx = carray(_at(job.dy), (job.numbers,)), carray(_at(job.dx), (job.numbers,))
    to_g, to_s, rest = _room(job, job.blocks)
    end = min((block + 1) * job.span, job.numbers)
    for begin in range(block * job.span, end, job.tile):
        there = min(begin + job.tile, end)
        xs, ss, dys, dxs = x[begin:there], s[begin:there], dy[begin:there], dx[begin:there]
        for j in range(ss.size):
            g = dxs[j] if order == NORM_GELU else dys[j]
            ds = g * to_g[j] + ss[j] * to_s[j] + rest[j]
            dxs[j] = ds * slope(xs[j]) if order == GELU_NORM else ds


@inlined
def _backward(jobs, order):
    job = carray(jobs, (1,))[0]
    if _me() == 0:
        _line(job)
    _wait()
    for block in range(_me(), job.blocks, _threads()):
        _sums(job, block, order)
    _wait()
    if _me() == 0:
        _finish_sums(job)
    _wait()
    for block in range(_me(), job.blocks, _threads()):
        _apply_backward(job, block, order)


def _compiled(body: Callable[..., None]) -> Any:
    """The body as C would call it: void (*)(void *)."""
    signature = types.void(types.CPointer(from_dtype(JOB)))
    try:
        return cfunc(signature, cache=True, **LANGUAGE)(body)
    except Exception as error:  # no folder to keep it in, a full disk, a torn file: whatever pickle makes of that
        log.warning("%s is compiled for this process alone, which takes seconds: %s", body.__name__, error)
        return cfunc(signature, **LANGUAGE)(body)


@_compiled
def forward_norm_gelu(jobs):
    _forward(jobs, NORM_GELU)


@_compiled
def forward_gelu_norm(jobs):
    _forward(jobs, GELU_NORM)


@_compiled
def backward_norm_gelu(jobs):
    _backward(jobs, NORM_GELU)


@_compiled
def backward_gelu_norm(jobs):
    _backward(jobs, GELU_NORM)


FORWARD = {NORM_GELU: forward_norm_gelu, GELU_NORM: forward_gelu_norm}
BACKWARD = {NORM_GELU: backward_norm_gelu, GELU_NORM: backward_gelu_norm}
