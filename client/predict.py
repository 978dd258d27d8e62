"""`fedurwkv predict`: masks, overlays and a table of areas for a folder of pictures."""

import csv
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from client.data import THREADS
from client.device import Place, PlaceSettings, find_place
from client.images import Pixels
from client.model_file import open_model, trained_side
from client.outlines import draw_outlines
from client.pictures import list_pictures, read_ahead
from client.predictor import Picture, Predictor
from protocol.atomic import write_atomic
from protocol.errors import DataError, SettingsError

SMALLEST_TILE = 32
COLUMNS = ("name", "class", "pixels", "share")
EVERY = 10.0
"""Seconds between lines about the progress where there is no terminal."""


@dataclass(frozen=True)
class Wanted:
    """What the user asked for beside model and pictures; `size` None: the side on which the model was trained."""

    out: Path
    device: str
    tile: int | None
    size: int | None
    overlays: bool


def predict(source: Path, images: Path, wanted: Wanted, console: Console) -> None:
    """Predict the pictures `images`, a folder or a file, with the model `source`.

    Writes `masks/NAME.png` (labels, at the picture's size), `overlays/NAME.png` and `areas.csv` into the folder
    that is wanted. A picture that cannot be read is named and left out; the others are done all the same.

    Raises:
        SettingsError: an option is impossible.
        ModelError: the model cannot be read.
        DataError: there is nothing to predict, the folder is taken; or, at the end, pictures were left out.
    """
    began = time.perf_counter()
    if wanted.tile is not None and wanted.size is not None:
        raise SettingsError("--size resizes pictures and --tile does not: give one of them")
    if wanted.tile is not None and wanted.tile < SMALLEST_TILE:
        raise SettingsError(f"--tile = {wanted.tile} must be at least {SMALLEST_TILE} pixels")
    place = _place(wanted.device)
    model, words = open_model(source)
    size = wanted.tile or trained_side(source, words, wanted.size)
    predictor = Predictor(model, place, size, tile=wanted.tile or 0)
    paths, left_out = list_pictures(images)
    _make_folders(wanted)
    for line in left_out:
        _say(console, f"left out  {line}")
    rows: list[tuple[str, int, int, str]] = []
    try:
        with _Bar(console, len(paths)) as bar, ThreadPoolExecutor(THREADS) as threads:
            for pictures, found in _predicted(predictor, paths, wanted.overlays, bar, left_out):
                saved = threads.map(partial(_save, wanted.out), pictures, found)
                for picture, labels, _ in zip(pictures, found, saved, strict=True):
                    rows += _areas(picture.path.stem, labels, model.architecture.num_classes)
    finally:  # what was done before an interruption counts
        write_atomic(wanted.out / "areas.csv", _csv(rows))
    done = len({name for name, *_ in rows})
    seconds = time.perf_counter() - began
    parts = "masks, overlays" if wanted.overlays else "masks"
    plural = "s" if done != 1 else ""
    _say(
        console, f"{done} picture{plural} in {seconds:.1f} s on {place.device}: {parts} and areas.csv in {wanted.out}"
    )
    if left_out:
        raise DataError(f"{len(left_out)} of {len(left_out) + done} were left out, named above with the cure")


def _place(device: str) -> Place:
    try:
        return find_place(PlaceSettings(device, precision="auto", threads=0, compile="auto"))
    except SettingsError as error:
        raise SettingsError(str(error).replace("train.device", "--device")) from error


def _make_folders(wanted: Wanted) -> None:
    out = wanted.out
    if out.exists() and not out.is_dir():
        raise DataError(f"{out} is a file: choose another --out")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out} is not empty: choose another --out, or remove what it holds")
    (out / "masks").mkdir(parents=True)
    if wanted.overlays:
        (out / "overlays").mkdir()


def _predicted(
    predictor: Predictor, paths: list[Path], overlays: bool, bar: "_Bar", left_out: list[str]
) -> Iterator[tuple[list[Picture], list[Pixels]]]:
    """Pictures with their labels, a batch at a time; what cannot be read is said and added to `left_out`."""
    waiting: list[Picture] = []
    read = partial(predictor.read, overlay=overlays)
    for number, (_, made) in enumerate(read_ahead(read, paths, predictor.pictures), 1):
        try:
            waiting.append(made.result())
        except DataError as error:
            left_out.append(str(error))
            bar.say(f"left out  {error}")
            bar.advance(1)
        if len(waiting) == predictor.pictures or (waiting and number == len(paths)):
            yield waiting, predictor.labels(waiting, bar.advance)
            waiting = []


def _save(out: Path, picture: Picture, labels: Pixels) -> None:
    file = f"{picture.path.stem}.png"
    Image.fromarray(labels).save(out / "masks" / file)
    if picture.small is not None:
        Image.fromarray(draw_outlines(picture.small, labels)).save(out / "overlays" / file)


def _areas(name: str, labels: Pixels, num_classes: int) -> list[tuple[str, int, int, str]]:
    """A row for each class of foreground: its pixels, and their share of the picture."""
    counts = np.bincount(labels.reshape(-1), minlength=max(2, num_classes))
    return [(name, label, int(pixels), f"{pixels / labels.size:.6f}") for label, pixels in enumerate(counts) if label]


def _csv(rows: list[tuple[str, int, int, str]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(rows)
    return text.getvalue()


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


class _Bar:
    """A progress bar on a terminal; elsewhere a line now and then."""

    def __init__(self, console: Console, total: int) -> None:
        self._console, self._total, self._done = console, total, 0.0
        self._said = time.monotonic()
        columns = (TextColumn("predicting"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._task = self._bar.add_task("", total=total)

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def say(self, text: str) -> None:
        """A line above the bar."""
        _say(self._console, text)

    def advance(self, pictures: float) -> None:
        """So many pictures more are done, or left out."""
        self._done += pictures
        self._bar.update(self._task, completed=self._done)
        if not self._console.is_terminal and time.monotonic() - self._said > EVERY:
            self._said = time.monotonic()
            self.say(f"{self._done / self._total:.0%} of {self._total} picture{'s' if self._total > 1 else ''}")
