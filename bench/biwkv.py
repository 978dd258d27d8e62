"""Bi-WKV: the Triton kernels on a GPU against the floor by bytes, the torch form on a CPU against the definition.

Forward must move three tensors (k, v, y), backward five (k, v, dy, dk, dv); the floor is their bytes at the
bandwidth of a copy. Caches are cold; times are medians of CUDA graphs, so no launch counts.

    python bench/biwkv.py [--device cuda|cpu] [--tune]
"""

import argparse
import contextlib
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from bench.table import Aim, capture, copy_bandwidth, gpu_milliseconds, heading, row
from client.device import keep_memory
from urwkv.ops import biwkv

SHAPES = {
    "(512, 256, 256)": (128, 4, 256, 256),
    "(8, 4096, 256)": (8, 1, 4096, 256),
}
AIMS = {
    ("(512, 256, 256)", torch.float32, "forward"): Aim("0.306 ms", "0.13 ms", "0.11 ms"),
    ("(512, 256, 256)", torch.float32, "backward"): Aim("1.72 ms", "0.28 ms", "0.20 ms"),
    ("(8, 4096, 256)", torch.float32, "forward"): Aim("0.245 ms", "0.03 ms", "0.015 ms"),
    ("(8, 4096, 256)", torch.float32, "backward"): Aim("1.00 ms", "0.08 ms", "0.04 ms"),
    ("(512, 256, 256)", torch.bfloat16, "forward"): Aim("", "65 % of copy", "80 % of copy"),
}
NAMES = {torch.float32: "fp32", torch.bfloat16: "bf16"}


def tensors(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> list[Tensor]:
    """w, u, k, v as the network makes them at its start, ready for gradients; and dL/dy."""
    torch.manual_seed(0)
    tokens, channels = shape[-2:]
    ramp = torch.arange(channels, device=device) / max(1, channels - 1)
    w, u = (-5 + 8 * ramp**0.7) / tokens, torch.randn(channels, device=device) / tokens
    k, v, dy = (torch.randn(shape, device=device).to(dtype) for _ in range(3))
    return [*(tensor.expand(shape[0], channels).clone().requires_grad_() for tensor in (w, u)),
            k.requires_grad_(), v.requires_grad_(), dy]  # fmt: skip


def few(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape with as few samples as have the same kernels: some that the cache fetches while others are read."""
    return min(shape[0], 9), *shape[1:]


def compile_for(shape: tuple[int, ...], dtype: torch.dtype, way: str = "", cut: object = None) -> str:
    """In a process of its own: leaves the kernels for that shape in Triton's cache on the disk."""
    try:
        with using(way, cut):
            *leaves, dy = tensors(few(shape), dtype, "cuda")
            torch.autograd.grad(biwkv(*leaves, backend="triton"), leaves, dy)
            torch.cuda.synchronize()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def using(way: str, cut: object) -> contextlib.AbstractContextManager[object]:
    """Inside, that way's kernels cut their work so; None: as usual."""
    if cut is None:
        return contextlib.nullcontext()
    from urwkv.ops.triton_scan import Tiles

    return mock.patch.object(Tiles, way, staticmethod(lambda *_: cut))


def compile_side_by_side(jobs: list[tuple]) -> list[str]:
    with ProcessPoolExecutor(min(12, len(jobs)), multiprocessing.get_context("spawn")) as pool:
        return list(pool.map(compile_for, *zip(*jobs, strict=True)))


def largest_errors(tokens: int) -> str:
    """Of y, dw, du, dk and dv beside the definition in float64, as shares of the largest exact number."""
    *leaves, dy = tensors((5, 4, tokens, 256), torch.float32, "cuda")
    wide = [tensor.detach().double().requires_grad_() for tensor in leaves]
    y, exact = biwkv(*leaves, backend="triton"), biwkv(*wide, backend="reference")
    found = [y, *torch.autograd.grad(y, leaves, dy)]
    expected = [exact, *torch.autograd.grad(exact, wide, dy.double())]
    errors = [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(found, expected, strict=True)]
    worst = ", ".join(f"{error:.0e}" for error in errors)
    if not max(errors) < 1e-5:
        raise ArithmeticError(f"errors of {worst}")
    return worst


def forward_and_backward(shape: tuple[int, ...], dtype: torch.dtype) -> dict[str, Callable[[], float]]:
    """What measures the milliseconds of each way; cold caches, no launches."""

    def forward() -> float:
        *leaves, _ = tensors(shape, dtype, "cuda")
        with torch.no_grad():
            return gpu_milliseconds(capture(lambda: biwkv(*leaves, backend="triton")).replay, cold=True)

    def backward() -> float:
        *leaves, dy = tensors(shape, dtype, "cuda")
        stream = torch.cuda.Stream()  # backward runs where its forward ran
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            y = biwkv(*leaves, backend="triton")
            work = partial(torch.autograd.grad, y, leaves, dy, retain_graph=True)
            work()
            torch.cuda.synchronize()
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, stream=stream):
                work()
        return gpu_milliseconds(graph.replay, cold=True)

    return {"forward": forward, "backward": backward}


def adding(shape: tuple[int, ...]) -> float:
    """The milliseconds of a sum by torch, which moves as many bytes as forward; cold caches, no launches."""
    _, _, k, v, y = tensors(shape, torch.float32, "cuda")
    with torch.no_grad():
        return gpu_milliseconds(capture(partial(torch.add, k, v, out=y)).replay, cold=True)


def in_words(measure: Callable[[], float], bytes_moved: float, bandwidth: float) -> str:
    taken = measure()
    share = bytes_moved / bandwidth * 1e3 / taken
    return f"{taken:.3f} ms, {share:.0%} of copy"


def on_gpu() -> bool:
    """The rows of the table; whether the numbers are right."""
    wanted = [((128, 4, 300, 256), torch.float32), *itertools.product(SHAPES.values(), NAMES)]
    began = time.perf_counter()
    failures = [failure for failure in compile_side_by_side(wanted) if failure]
    print(
        f"kernels compiled in {time.perf_counter() - began:.1f} s; {'; '.join(failures) or 'no failure'}", flush=True
    )
    bandwidth = copy_bandwidth()
    heading()
    row("copy bandwidth", Aim(), lambda: f"{bandwidth / 1e12:.2f} TB/s")
    right = [
        row(f"Bi-WKV, T = {n}: errors of y, dw, du, dk, dv", Aim("", "1e-05"), partial(largest_errors, n))
        for n in (256, 300)
    ]
    for (name, shape), dtype in itertools.product(SHAPES.items(), NAMES):
        for way, measure in forward_and_backward(shape, dtype).items():
            moved = torch.Size(shape).numel() * dtype.itemsize * (3 if way == "forward" else 5)
            aim = AIMS.get((name, dtype, way), Aim())
            row(f"Bi-WKV {NAMES[dtype]} {name}, {way}", aim, partial(in_words, measure, moved, bandwidth))
    for name, shape in SHAPES.items():
        moved = torch.Size(shape).numel() * 4 * 3
        row(f"adding k and v, fp32 {name}", Aim(), partial(in_words, partial(adding, shape), moved, bandwidth))
    return all(right)


def tune() -> None:
    """Other cuts of the work, a way, a dtype and a shape at a time; then other fetching, and two kernels for one."""
    from urwkv.ops import triton_scan
    from urwkv.ops.triton_scan import Tiles

    cuts = {
        "forward": [
            *(Tiles(32, 8, channels, 128) for channels in (16, 32, 64)),
            *(Tiles(16, 16, channels, most) for channels, most in ((16, 80), (16, 96), (32, 64))),
        ],
        "backward": [
            *(Tiles(32, 8, channels, 255) for channels in (8, 16, 32)),
            *(Tiles(16, 16, channels, most) for channels, most in ((8, 168), (16, 128))),
        ],
    }
    jobs = [
        (name, dtype, way, cut) for name, dtype, way in itertools.product(SHAPES, NAMES, cuts) for cut in cuts[way]
    ]
    failures = compile_side_by_side([(SHAPES[name], *rest) for name, *rest in jobs])
    for (name, dtype, way, cut), failure in zip(jobs, failures, strict=True):
        with using(way, cut):
            taken = failure or f"{forward_and_backward(SHAPES[name], dtype)[way]():.4f} ms"
        print(f"{NAMES[dtype]} {name}, {way}, {cut}: {taken}", flush=True)
    for programs, name, dtype, way in itertools.product((0, 64, 128, 224, 256), SHAPES, NAMES, cuts):
        with (
            mock.patch.object(triton_scan, "AHEAD", programs),
            mock.patch.object(triton_scan, "CACHE", triton_scan.CACHE if programs else 0),
        ):
            taken = forward_and_backward(SHAPES[name], dtype)[way]()
        words = f"fetched {programs} programs ahead" if programs else "nothing fetched"
        print(f"{NAMES[dtype]} {name}, {way}, {words}: {taken:.4f} ms", flush=True)
    with mock.patch.object(triton_scan, "CROWD", 2**30):
        for dtype, way in itertools.product(NAMES, cuts):
            taken = forward_and_backward(SHAPES["(8, 4096, 256)"], dtype)[way]()
            print(f"{NAMES[dtype]} (8, 4096, 256), {way}, in two kernels: {taken:.4f} ms", flush=True)


def on_cpu() -> None:
    def seconds(shape: tuple[int, ...], backend: str, repeat: int = 5) -> float:
        *leaves, dy = tensors(shape, torch.float32, "cpu")
        taken = []
        for _ in range(repeat + 1):
            began = time.perf_counter()
            torch.autograd.grad(biwkv(*leaves, backend=backend), leaves, dy)
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    def against_the_definition() -> str:
        mine, reference = (seconds((4, 256, 256), backend) for backend in ("torch", "reference"))
        return f"{mine * 1e3:.1f} ms, {reference / mine:.0f} times the definition's speed"

    def growth() -> str:
        each = {tokens: seconds((4, tokens, 256), "torch") / tokens for tokens in (256, 1024, 4096)}
        return ", ".join(f"{each[tokens] / each[256]:.2f} at {tokens}" for tokens in each)

    keep_memory()  # as a site does
    heading()
    row(
        f"Bi-WKV on {torch.get_num_threads()} CPU threads, (4, 256, 256), both ways",
        Aim("", "5 times"),
        against_the_definition,
    )
    row("Bi-WKV on the CPU: time a token, beside T = 256", Aim("", "1 at 4096"), growth)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tune", action="store_true", help="time other forms of the kernels, instead")
    words = parser.parse_args()
    if words.device == "cpu":
        on_cpu()
    elif words.tune:
        tune()
    elif not on_gpu():
        sys.exit(1)
