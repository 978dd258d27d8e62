"""The pictures of a folder that somebody wants predicted, and threads that read them ahead of the computing."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from client.data import THREADS
from client.site import BY_THE_SYSTEM, IMAGE_SUFFIXES
from client.site_csv import one_form
from protocol.errors import DataError

Item = TypeVar("Item")
Result = TypeVar("Result")

KNOWN = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)


def list_pictures(where: Path) -> tuple[list[Path], list[str]]:
    """The pictures in a folder, sorted by name, or the one file; and a line for whatever else lies there.

    Raises:
        DataError: there is nothing to predict, or two pictures have one name and so would have one mask.
    """
    if where.is_file():
        if where.suffix.lower() not in IMAGE_SUFFIXES:
            raise DataError(f"{where} is not one of {KNOWN}: convert it")
        return [where], []
    if not where.is_dir():
        raise DataError(f"no file or folder {where}: name a picture, or a folder of pictures")
    paths, others = [], []
    first: dict[str, Path] = {}
    for path in sorted(where.iterdir()):
        if path.name.startswith(".") or path.name.lower() in BY_THE_SYSTEM:
            continue
        if path.is_dir():
            others.append(f"{path} is a folder: predict it by itself")
        elif path.suffix.lower() not in IMAGE_SUFFIXES:
            others.append(f"{path} is not one of {KNOWN}: convert it, or move it away")
        else:
            paths.append(path)
            twin = first.setdefault(one_form(path.stem), path)
            if twin is not path:
                raise DataError(f"{twin} and {path} have the same name: rename or move one of them")
    if not paths:
        hint = f"; did you mean {where / 'images'}?" if (where / "images").is_dir() else f" ({KNOWN})"
        raise DataError(f"{where} holds no picture{hint}")
    return paths, others


def read_ahead(
    work: Callable[[Item], Result], items: Iterable[Item], many: int
) -> Iterator[tuple[Item, Future[Result]]]:
    """Each item with its result, in order, while threads work on at most `many` items further on."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="pictures") as threads:
        begun: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                begun.append((item, threads.submit(work, item)))
                if len(begun) > many:
                    yield begun.popleft()
            while begun:
                yield begun.popleft()
        finally:
            for _, late in begun:
                late.cancel()
