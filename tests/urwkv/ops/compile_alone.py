"""Triton's kernels compiled for a GPU that need not be there, for `triton_alone`."""

import itertools
import re

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from urwkv.ops import (
    finish_kernels,
    finish_triton,
    head_kernels,
    head_triton,
    loss_kernels,
    loss_triton,
    norm_kernels,
    pair_kernels,
    pair_triton,
    pool_kernels,
    pool_triton,
    scan_kernels,
    token_kernels,
    token_triton,
)
from urwkv.ops import triton_kernels as kernels
from urwkv.ops.scans_triton import Cut as ScansCut
from urwkv.ops.triton_scan import Tiles

HOPPER = GPUTarget("cuda", 90, 32)


def compile_pools() -> None:
    """Pooling at the base network's widths, and at one that is no power of two."""
    forms = (pool_kernels.forward, {}), *((pool_kernels.backward, {"BESIDE": beside}) for beside in (False, True))
    for (kernel, form), channels, dtype in itertools.product(forms, (3, 16, 32, 128, 160), ("fp32", "bf16")):
        words = {**form, "C": channels, "BLOCK": pool_triton.BLOCK, "num_warps": 4, "maxnreg": None}
        compiled(kernel, words, dtype, {"x_ptr", "y_ptr", "dy_ptr", "beside_ptr", "dx_ptr"})


def compile_finish() -> None:
    """What follows a convolution, in all its forms."""
    for gelu, line, beside in itertools.product((True, False), repeat=3):
        words = {"GELU": gelu, "LINE": line, "BESIDE": beside, "C": 160}
        words |= {**finish_triton.cut(160), "maxnreg": None}
        for dtype in ("fp32", "bf16"):
            compiled(finish_kernels.finish, words, dtype, {"x_ptr", "beside_ptr", "y_ptr"})


def compile_heads() -> None:
    """Of both networks' maps, of one whose channels are no power of two, and of rows that fill programs or do not.

    Of the base network's in bf16 no sum changes threads: forward one does, to be written, backward one at the end.
    """
    rows = 8 * 256 * 256
    for classes, channels, dtype, more in itertools.product((1, 4), (8, 16, 24), ("fp32", "bf16"), (0, 5)):
        *_, words = head_triton.cut(rows + more, channels)
        assert words["EVEN"] == (more == 0 and channels != 24)
        for kernel in (head_kernels.forward, head_kernels.backward):
            tiles = head_triton.tiles(words["BLOCK"], forward=kernel is head_kernels.forward)
            form = {**words, **tiles, "CLASSES": classes, "maxnreg": None}
            made = compiled(kernel, form, dtype, {"x_ptr", "y_ptr", "dy_ptr", "dx_ptr"}, divisible=True)
            if (channels, dtype) == (16, "bf16"):
                assert made["ttgir"].count("ttg.convert_layout") == classes, (kernel, classes)


def compile_losses() -> None:
    """The sums over pixels."""
    for kernel, dtype in itertools.product((loss_kernels.sums, loss_kernels.backward), ("fp32", "bf16")):
        words = {"BLOCK": loss_triton.BLOCK, "num_warps": 4, "maxnreg": None}
        compiled(kernel, words, dtype, {"z_ptr", "dz_ptr"}, divisible=True)


def compile_scans() -> None:
    """The scans' operators at the base network's and the small one's widths, for maps of float32 and scans of bf16.

    As launches have it numbers are divisible by 16 where they are, or threads would read one number at a time; and
    they are constants where they are 1, as sides may be.
    """
    forms = [(channels, {}, form) for channels in (256, 128) for form in ((3, 4), (2, 2), (2, 1))]
    forms += [(4, {"Q": 1, **sides}, (3, 4)) for sides in ({}, {"H": 1}, {"W": 1}, {"H": 1, "W": 1})]
    mixed = {f"{x}_{i}_ptr" for x in ("x", "dx") for i in range(3)}
    for channels, ones, (number, scans) in forms:
        words = {**ScansCut.of(8, 16, 16, channels).words(), **ones, "maxnreg": None}
        for kernel in (scan_kernels.mix, scan_kernels.mix_backward):
            compiled(kernel, {**words, "NUMBER": number, "SCANS": scans}, "bf16", mixed, divisible=True)
        for kernel in (scan_kernels.gate, scan_kernels.gate_backward):
            compiled(kernel, words, "bf16", {"r_ptr", "dr_ptr", "out_ptr", "dout_ptr"}, divisible=True)


def compile_norms_of_tokens() -> None:
    """Of scans and of the wide tokens of channel mixing, at the base network's widths."""
    for (channels, squared), dtype in itertools.product(
        ((256, False), (1024, True), (3000, False)), ("fp32", "bf16")
    ):
        *_, words = token_triton.cut(65536, channels)
        words = {**words, "SQUARED": squared, "maxnreg": None}
        for kernel in (token_kernels.forward, token_kernels.backward):
            compiled(kernel, words, dtype, {"x_ptr", "y_ptr", "dy_ptr", "dx_ptr"}, divisible=True)


def compile_pairs() -> None:
    """The operator for prediction at the base network's widths."""
    for channels, out, fusion in ((16, 16, False), (16, 32, False), (128, 128, True)):
        hidden = 4 * channels
        words = {"CIN": channels, "HIDDEN": hidden, "COUT": out, "FUSION": fusion, "RESIDUAL": channels == out}
        words |= {**pair_triton.cut(channels, hidden, out), "maxnreg": None}
        compiled(pair_kernels.pair, words, "bf16", {"a_ptr", "b_ptr", "w1_ptr", "w2_ptr", "y_ptr"})


def compile_all() -> None:
    """Every kernel as it is launched for one token, for maps of 64 and 256 pixels a side, and for long sequences, in
    two kernels or, where programs wait for each other, in one."""
    shapes = itertools.product(((1, 7), (200, 256), (256, 256), (300, 256)), ("fp32", "bf16"))
    for (tokens, channels), dtype in (*shapes, ((200, 33), "fp16"), ((4096, 256), "fp32")):
        wait = tokens == 4096
        cuts = Tiles.forward(tokens, channels), Tiles.backward(tokens, channels)
        forward, backward = (tiles.words(tokens, channels) for tiles in cuts)
        assert forward["BLOCKS"] == backward["BLOCKS"]
        check(kernels.forward, {**forward, "WAIT": wait, "FETCH": forward["EVEN"]}, channels, dtype)
        for last in {True, tokens != 300}:
            form = {"WAIT": wait, "LAST": last, "ALONE": tokens == 1, "FETCH": backward["EVEN"]}
            check(kernels.backward, {**backward, **form}, channels, dtype)
        if tokens == 300:
            check(kernels.summarise, forward, channels, dtype)


def compile_norms() -> None:
    """The kernels of norm and GELU, in all their forms."""
    orders, numbers, forms = (0, 1, 2), ("fp32", "bf16"), ((True, 4), (False, 1))
    kernels_of_maps = (norm_kernels.moments, norm_kernels.apply, norm_kernels.sums, norm_kernels.apply_backward)
    for order, shifted, dtype, (even, depth) in itertools.product(orders, (False, True), numbers, forms):
        words = {"BLOCK": 16, "ROWS": 64, "DEPTH": depth, "EVEN": even, "ORDER": order, "SHIFTED": shifted}
        for kernel in kernels_of_maps:
            own = {norm_kernels.apply: ("BESIDE", (0, 1, 2)), norm_kernels.apply_backward: ("SUMMED", (False, True))}
            name, values = own.get(kernel, ("ORDER", (order,)))
            maps = {"x_ptr", "beside_ptr", "y_ptr", "dy_ptr", "dx_ptr"}
            for value in values:
                form = {**words, name: value, "num_warps": 4, "maxnreg": None}
                compiled(kernel, form, dtype, maps)


def check(kernel, words: dict, channels: int, dtype: str) -> None:
    words = {
        **words,
        **{f"{x}_t": channels for x in ("k", "v", "dy")},
        **{f"{x}_c": 1 for x in ("k", "v", "dy")},
        "C": channels,
    }
    maps = {"k_ptr", "v_ptr", "y_ptr", "dy_ptr", "dk_ptr", "dv_ptr"}
    stages = compiled(kernel, words, dtype, maps)
    machine = stages["ptx"]
    shares = set(re.findall(r"sizePerThread = (\[.*?\])", stages["ttgir"]))
    assert shares == {"[1, 1]"}, f"{kernel}: threads hold {shares} numbers, and exchange one"
    loads = (3 if kernel is kernels.backward else 2) * words["L"] + 3
    assert machine.count("ld.global") <= loads, f"{kernel}: threads load tokens that others have"
    barriers = 6 if kernel is kernels.backward else 5 if kernel is kernels.forward else 2
    assert machine.count("bar.sync") <= barriers, f"{kernel}: tokens change threads, which costs barriers"


def compiled(kernel, words: dict, dtype: str, maps: set[str], *, divisible: bool = False) -> dict[str, str]:
    """What Triton makes of a kernel, by stages; its pointers to `maps` are of that dtype, all others of float32.

    `divisible`: all numbers and addresses that it is given are divisible by 16.
    """
    types = {}
    for name in kernel.arg_names:
        if name in words:
            types[name] = "constexpr"
        elif name.endswith("_ptr") or name in ("blocks", "carries", "shares", "parts", "means"):
            types[name] = f"*{dtype}" if name in maps else "*fp32"
        else:
            types[name] = "fp32" if name == "eps" else "i32"
    constants = {(i,): words[name] for i, name in enumerate(kernel.arg_names) if name in words}
    attributes = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if divisible and types[name] not in ("constexpr", "fp32")
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=attributes)
    made = triton.compile(
        source, target=HOPPER, options={name: words[name] for name in ("num_warps", "maxnreg") if words[name]}
    )
    return made.asm
