"""What the benchmarks share: rows that are printed as soon as they are known, and medians on a GPU's own clock."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

Work = Callable[[], object]

FLUSH = 256 * 2**20  # bytes, more than the caches of a GPU hold


@dataclass(frozen=True)
class Aim:
    """What others measured, what a row is to reach, and what would be a stretch; empty where there is no number."""

    elsewhere: str = ""
    reach: str = ""
    stretch: str = ""


def heading() -> None:
    print("| what | elsewhere | reach | stretch | measured |\n|---|---|---|---|---|", flush=True)


def row(what: str, aim: Aim, measure: Callable[[], str]) -> bool:
    """Prints the row of a Markdown table; a failure is printed in its place. Returns whether it was measured."""
    try:
        measured, ok = measure(), True
    except Exception as error:
        measured, ok = f"failed: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}", False
    print(f"| {what} | {aim.elsewhere} | {aim.reach} | {aim.stretch} | {measured} |", flush=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return ok


def capture(work: Work, warm: int = 3) -> torch.cuda.CUDAGraph:
    """The work as one CUDA graph, warmed up on a stream of its own."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(warm):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        work()
    return graph


def gpu_milliseconds(work: Work, repeat: int = 20, warm: int = 3, *, cold: bool = False) -> float:
    """The median time of the work by device events.

    Args:
        cold: clear the caches before each, which also hides how long the launch takes on the CPU.
    """
    for _ in range(warm):
        work()
    flush = torch.empty(FLUSH, dtype=torch.int8, device="cuda") if cold else None
    spans = []
    for _ in range(repeat):
        if flush is not None:
            flush.zero_()
        spans.append((torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)))
        spans[-1][0].record()
        work()
        spans[-1][1].record()
    torch.cuda.synchronize()
    return statistics.median(began.elapsed_time(ended) for began, ended in spans)


def copy_bandwidth() -> float:
    """Bytes a second that a copy of 1 GiB reads and writes."""
    source = torch.randn(2**28, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / gpu_milliseconds(lambda: target.copy_(source), 10) * 1e3
