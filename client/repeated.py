"""Work on batches that is done again and again: recorded once it has been done often enough, then replayed.

A CUDA graph replays kernels on the very memory that they were recorded with. So what goes in is copied to where the
recording reads it, and what comes out is overwritten by the next replay.
"""

import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import torch
from torch import Tensor

from client.device import Place
from protocol.errors import RoundError

Result = TypeVar("Result")
"""What work gives: one tensor, or several."""

BREAK_EVEN = 100
"""How often `auto` does work on a shape before it is recorded.

How much more will come is not known: sites share a recording, and a run may stop early. A training step's warm-up
and capture together were measured at 4 to 11 s on an H200, and at 30 to 45 s the first time on a machine, when Triton
compiles kernels that it then keeps on the disk; its graph of fused operators saves 19 ms a step at batch 8, 24 at 32
and 86 at 128. That is paid back after some 100 to 500 steps, the first time after 400 to 2,000; a run of a minute
takes as many, and comes out even.
"""

WARM = 3
"""How often it is done in the form that is recorded: libraries choose their kernels in the first, and none may be
chosen during a capture. `graph` and `inductor` begin with these."""

_capturing = threading.Lock()
"""torch captures one graph at a time in a process."""


class Recorder(Protocol):
    """Does work where it could be recorded, and records it.

    Attributes:
        device: where the work is.
        after: how often work is done before it is recorded.
    """

    device: torch.device
    after: int

    def do(self, work: Callable[[], Result]) -> Result:
        """The result of the work, done as it is written."""

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """What replays the work; it is not done yet."""


class CudaRecorder:
    """Records CUDA graphs, all in one pool of memory: none needs what another left there.

    Args:
        device: a GPU.
        after: how often work is done before it is recorded, at least once.
    """

    def __init__(self, device: torch.device, after: int) -> None:
        self.device, self.after = device, after
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def do(self, work: Callable[[], Result]) -> Result:
        """On the stream of the recordings, where libraries then have what they need."""
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            result = work()
        current.wait_stream(self._stream)
        return result

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        """The graph of the work.

        Raises:
            RoundError: the graph does not fit into memory.
        """
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads make batches meanwhile, in pinned memory, or compute on another GPU: "thread_local".
            with (
                _capturing,
                torch.cuda.device(self.device),
                torch.cuda.graph(graph, self._pool, self._stream, capture_error_mode="thread_local"),
            ):
                result = work()
        except torch.OutOfMemoryError as error:
            raise RoundError(
                f"no memory left on {self.device} to capture the step; set train.compile=off, or lower train.batch or"
                " privacy.physical"
            ) from error

        def replay() -> Result:
            graph.replay()
            return result

        return replay


def recorder_at(place: Place) -> Recorder | None:
    """What records at that place, by `train.compile`; None: nothing does."""
    if place.device.type != "cuda" or place.compile == "off":
        return None
    return CudaRecorder(place.device, BREAK_EVEN if place.compile == "auto" else WARM)


class Repeated(Generic[Result]):
    """Work on tensors, (tensors of one batch) -> result, by the shapes of the batch.

    What the work reads besides, and what it leaves behind for later work, must stay where it is in memory.

    Args:
        replayed: the same work in the form that is recorded, which may take longer until it is; None: as `work`.
    """

    def __init__(
        self, work: Callable[..., Result], recorder: Recorder, replayed: Callable[..., Result] | None = None
    ) -> None:
        self._work, self._recorder, self._replayed = work, recorder, replayed or work
        self._done: dict[object, int] = {}
        self._recorded: dict[object, tuple[list[Tensor], Callable[[], Result]]] = {}

    def __call__(self, *batch: Tensor) -> Result:
        """The result; the next call may overwrite it."""
        shape = tuple((tensor.shape, tensor.dtype) for tensor in batch)
        done = self._done[shape] = self._done.get(shape, 0) + 1
        if shape not in self._recorded and done <= self._recorder.after:
            there = [tensor.to(self._recorder.device, non_blocking=True) for tensor in batch]
            work = self._work if done <= self._recorder.after - WARM else self._replayed
            return self._recorder.do(lambda: work(*there))
        if shape not in self._recorded:
            device = self._recorder.device
            places = [torch.empty(tensor.shape, dtype=tensor.dtype, device=device) for tensor in batch]
            self._recorded[shape] = places, self._recorder.record(lambda: self._replayed(*places))
        places, replay = self._recorded[shape]
        for place, tensor in zip(places, batch, strict=True):
            place.copy_(tensor, non_blocking=True)
        return replay()
