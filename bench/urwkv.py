"""U-RWKV: training and inference of the base network at 256 x 256, and Bi-WKV alone, beside what they are to reach.

Images a second count everything from uint8 pixels on the device to the optimizer's step, or to the logits; random
data; medians by device events. "graph" is a step captured as one CUDA graph. "elsewhere" is the runnable public
U-RWKV with its CUDA kernel on an H200.

    python bench/urwkv.py [--quick] [--device cuda|cpu]
    python bench/urwkv.py --fused         # norm and GELU fused: their tests on this GPU, then rows with and without
    python bench/urwkv.py --compiled      # by torch.compile, under a graph
"""

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import nn

from bench.table import Aim, capture, gpu_milliseconds, heading, row
from client.data import normalise
from client.device import Place, keep_memory
from client.objective import Objective
from urwkv import URWKV
from urwkv.folded import folded
from urwkv.lean import lean
from urwkv.losses import segmentation_loss
from urwkv.ops import biwkv
from urwkv.steps import choose

SIDE = 256
TESTS = 240
"""Seconds that the tests of `--fused` may take."""
TRAINING = {
    8: Aim("224 img/s", "1,100 img/s", "2,000 img/s"),
    32: Aim("408 img/s", "2,200 img/s", "3,500 img/s"),
    128: Aim("444 img/s, 47 GB", "2,600 img/s, 20 GB", "4,000 img/s, 14 GB"),
}
INFERENCE = {1: Aim("8.8 ms", "1.5 ms", "0.7 ms"), 128: Aim("2,193 img/s", "9,000 img/s", "14,000 img/s")}
WRITTEN = "as written"
FORMS: dict[str, Callable[[URWKV], nn.Module]] = {
    WRITTEN: lambda model: model,
    "folded": folded,
    "lean": partial(lean, dtype=torch.bfloat16),
}
"""For prediction: its norms folded; the fewest passes (`urwkv.lean`)."""


def network(backend: str, device: str = "cuda") -> URWKV:
    torch.manual_seed(0)
    model = URWKV().to(device, memory_format=torch.channels_last)
    model.darm.spatial.biwkv = partial(biwkv, backend=backend)
    return model


def pictures(batch: int, side: int, device: str = "cuda") -> tuple[torch.Tensor, torch.Tensor]:
    pixels = torch.randint(256, (batch, side, side, 3), dtype=torch.uint8, device=device)
    return pixels, torch.randint(2, (batch, side, side), dtype=torch.uint8, device=device)


def training_step(model: nn.Module, batch: int, form: str, *, captured: bool) -> Callable[[], object]:
    """A step of bf16 autocast, float32 weights and fused AdamW, on the same random pictures each time."""
    pixels, masks = pictures(batch, SIDE)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=torch.tensor(1e-4, device="cuda"), fused=True, capturable=True
    )
    loss_of = getattr(Objective(model, Place(torch.device("cuda"), True, "graph")), form)

    def step() -> None:
        loss = loss_of(pixels, masks)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return capture(step).replay if captured else step


def training(backend: str, batch: int, form: str = "as_written", *, captured: bool) -> str:
    torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    step = training_step(network(backend).train(), batch, form, captured=captured)
    step()
    torch.cuda.synchronize()
    warm = time.perf_counter() - began
    taken = gpu_milliseconds(step, 20)
    peak = torch.cuda.max_memory_allocated() / 1e9
    return f"{batch / taken * 1e3:,.0f} img/s, {peak:.1f} GB, warm in {warm:.1f} s"


def inference(backend: str, batch: int, *, captured: bool, compiled: bool = False, form: str = WRITTEN) -> str:
    model = FORMS[form](network(backend).eval()).to(memory_format=torch.channels_last)
    pixels, _ = pictures(batch, SIDE)

    def logits_of(pixels: torch.Tensor) -> torch.Tensor:
        return model(normalise(pixels))

    if compiled:
        torch.compiler.reset()
        logits_of = torch.compile(logits_of, fullgraph=True, dynamic=False)

    def predict() -> torch.Tensor:
        with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
            return logits_of(pixels)

    taken = gpu_milliseconds(capture(predict).replay if captured else predict, 20)
    return f"{taken:.2f} ms" if batch == 1 else f"{batch / taken * 1e3:,.0f} img/s"


def costs(backend: str, batch: int, form: str = "as_written") -> str:
    """The kernels that take most of a training step that is not captured, by name."""
    step = training_step(network(backend).train(), batch, form, captured=False)
    for _ in range(3):
        step()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        step()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total = sum(event.self_device_time_total for event in events)
    shares = [f"{event.self_device_time_total / total:.0%} {event.key[:60]} x{event.count}" for event in events[:14]]
    return f"{total / 1e3:.2f} ms in {sum(event.count for event in events)} kernels: " + "; ".join(shares)


def on_gpu(backend: str, *, quick: bool) -> None:
    heading()
    for batch in (8, 32, 128):
        for captured in (True, False) if batch == 8 or not quick else (True,):
            name = f"training, batch {batch}, {'graph' if captured else 'eager'}"
            row(name, TRAINING[batch], partial(training, backend, batch, captured=captured))
    for batch in (1, 128):
        for captured in (True, False) if batch == 1 else (True,):
            name = f"inference, batch {batch}, {'graph' if captured else 'eager'}"
            row(name, INFERENCE[batch], partial(inference, backend, batch, captured=captured))
    for batch in (32,) if quick else (8, 32, 128):
        row(f"training, batch {batch}, eager: largest costs", Aim(), partial(costs, backend, batch))


def by_compiler(backend: str) -> None:
    """Rows of the compiled network, captured."""
    heading()
    for batch in (128, 32, 8):
        name = f"training, batch {batch}, compiled and graph"
        row(name, TRAINING[batch], partial(training, backend, batch, "compiled", captured=True))
        if batch == 32:
            row(f"{name}: largest costs", Aim(), partial(costs, backend, batch, "compiled"))
    for batch in (128, 1):
        for form in FORMS:
            name = f"inference, batch {batch}, compiled and graph, {form}"
            row(name, INFERENCE[batch], partial(inference, backend, batch, captured=True, compiled=True, form=form))


def fusion(backend: str) -> None:
    """The tests of fused norms and of DARM's mixing on this GPU, in a process of their own; then both in rows."""
    root = Path(__file__).resolve().parent.parent
    tests = ["tests/urwkv/test_steps.py", "tests/urwkv/test_mixing.py", "-m", "gpu", "-v"]
    tests += ["-W", "default", "-p", "no:cacheprovider", "-n", "8"]
    tests += [f"--timeout={TESTS // 2}"]  # one that hangs fails, and what the others said is told
    try:
        subprocess.run([sys.executable, "-m", "pytest", *tests], cwd=root, check=False, timeout=TESTS)
    except subprocess.TimeoutExpired:
        print(f"the tests took more than {TESTS} s and were ended", flush=True)
    heading()
    for batch in (8, 32, 128):
        for captured in (False, True):
            for form in ("as_written", "fused"):
                name = f"training, batch {batch}, {'graph' if captured else 'eager'}"
                name += ", fused" if form == "fused" else ""
                row(name, TRAINING[batch], partial(training, backend, batch, form, captured=captured))
    for batch in (1, 128):
        for form in FORMS:
            name = f"inference, batch {batch}, graph, {form}"
            row(name, INFERENCE[batch], partial(inference, backend, batch, captured=True, form=form))
    row("training, batch 32, eager, fused: largest costs", Aim(), partial(costs, backend, 32, "fused"))


def on_cpu() -> None:
    """A training step of 128 x 128, batch 4, in float32, as written and as a site computes it: the two in turn."""
    keep_memory()  # as a site does
    pixels, masks = pictures(4, 128, "cpu")

    def stepper(backend: str) -> Callable[[], tuple[float, float]]:
        model = network("auto", "cpu").train()
        choose(model, backend)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step() -> tuple[float, float]:
            """Seconds by the clock, and of the processor, which others on the machine disturb less."""
            began = time.perf_counter(), time.process_time()
            loss = segmentation_loss(model(normalise(pixels)), masks)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            return time.perf_counter() - began[0], time.process_time() - began[1]

        step()
        return step

    def shares(step: Callable[[], object]) -> str:
        with torch.profiler.profile() as profile:
            step()
        events = sorted(profile.key_averages(), key=lambda event: -event.self_cpu_time_total)
        total = sum(event.self_cpu_time_total for event in events)
        return ", ".join(f"{event.key} {event.self_cpu_time_total / total:.0%}" for event in events[:8])

    heading()
    written, site = stepper("torch"), stepper("auto")
    pairs = [(written(), site()) for _ in range(15)]
    seconds = [[statistics.median(step[i] for step in steps) for i in (0, 1)] for steps in zip(*pairs, strict=True)]
    ratios = [statistics.median(a[i] / b[i] for a, b in pairs) for i in (0, 1)]

    def times(which: int) -> str:
        return f"{seconds[which][0]:.3f} s, {seconds[which][1]:.3f} s of the processor"

    row("training step, 128 x 128, batch 4, as written", Aim(), lambda: times(0))
    row("its largest costs", Aim(), lambda: shares(written))
    row("the same as a site computes it", Aim(), lambda: times(1))
    row("its largest costs", Aim(), lambda: shares(site))
    row("how many times as fast", Aim(), lambda: f"{ratios[0]:.2f}, by the processor {ratios[1]:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="the rows that matter most, under 100 seconds")
    parser.add_argument("--fused", action="store_true", help="norm and GELU fused, tests first; under 9 minutes")
    parser.add_argument("--compiled", action="store_true", help="the network by torch.compile; under 9 minutes")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--backend", help="of Bi-WKV, for the network's rows alone; else Bi-WKV's own come first")
    words = parser.parse_args()
    print(f"torch {torch.__version__}, ", end="")
    print(
        torch.cuda.get_device_name() if words.device == "cuda" else f"{torch.get_num_threads()} CPU threads",
        flush=True,
    )
    backend = words.backend
    if words.fused:
        fusion(backend or "auto")
        return
    if words.compiled:
        by_compiler(backend or "auto")
        return
    if backend is None:
        # In a process of its own: a kernel that fails takes its process with it.
        alone = [sys.executable, str(Path(__file__).with_name("biwkv.py")), "--device", words.device]
        backend = "auto" if subprocess.run(alone, check=False).returncode == 0 else "torch"
        print(f"the network's rows, with Bi-WKV by {backend}", flush=True)
    if words.device == "cpu":
        on_cpu()
    else:
        on_gpu(backend, quick=words.quick)


if __name__ == "__main__":
    main()
