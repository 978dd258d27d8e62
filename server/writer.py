"""Writes the journal beside the rounds: while the sites compute round r + 1, round r reaches the disk."""

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from server.journal import Journal, State


class Writer:
    """A thread that writes checkpoints, one at a time. Leaving its `with` block waits for the last one.

    Whoever asks it to `wait` before a round is aggregated is never more than one finished round ahead of the
    disk, so a run that is killed computes at most one finished round again.

    Args:
        journal: where it writes.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._written: Future[None] | None = None

    def write(self, state: State) -> None:
        """Begin to write `state` as it is now; its caller may go on changing it.

        Raises:
            OSError: the checkpoint before could not be written.
        """
        self.wait()
        self._written = self._thread.submit(self._journal.write, state.snapshot())

    def wait(self) -> None:
        """Until every checkpoint is on disk.

        Raises:
            OSError: the last one could not be written.
        """
        written, self._written = self._written, None
        if written is not None:
            written.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        self.wait()
