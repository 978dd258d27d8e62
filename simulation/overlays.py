"""Pictures of what the best model sees: outlines of truth and prediction on the best and the worst test cases."""

import dataclasses
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from PIL import Image
from torch import nn

from client.app import STATE
from client.data import Images, load_split
from client.device import Place, PlaceSettings, find_place
from client.evaluation import predictions
from client.images import Pixels
from client.inference import Inference
from client.memory import PERSONAL
from client.site import read_site
from client.trainer import SiteData
from protocol.atomic import write_atomic
from protocol.settings import Table, section
from urwkv import Architecture
from urwkv.metrics import dice
from urwkv.weights import load_model

Kind = Literal["worst", "best", "typical"]

EACH = 4  # worst cases and best cases
OTHER_SITES = 8  # sites that have none among them and show a typical case, at most
TRUTH, PREDICTION = "#22D3EE", "#FFB000"  # blue and orange: apart for every kind of sight, on grey and on skin
COLUMNS = 4  # of the sheet
TILE_INCHES, STRIP_INCHES, DPI = 3.0, 0.3, 150


@dataclass(frozen=True)
class Overlay:
    """One picture in RUN/overlays: its file's name there, the test case, its Dice, and why it was chosen."""

    file: str
    site: str
    case: str
    dice: float
    kind: Kind


@dataclass(frozen=True)
class Predicted:
    """One test case: image (H, W, C) and label maps (H, W), all uint8."""

    site: str
    case: str
    dice: float
    image: Pixels
    truth: Pixels
    prediction: Pixels


@dataclass(frozen=True)
class ReportSettings:
    """The `report.*` settings: whose pictures may appear in report and MLflow."""

    overlays: Literal["public", "all", "none"]

    def allow(self, public: bool) -> bool:
        """Whether pictures that are public, or not, may be shown."""
        return self.overlays == "all" or (self.overlays == "public" and public)


def make_overlays(run: Path, sites: list[Path], table: Table) -> list[Overlay]:
    """Draw RUN/overlays/*.png from RUN/model.safetensors, or the sites' own models, and the sites' test cases.

    Beside the pictures lie overlays.json (the list that is returned) and sheet.png (all of them).

    Args:
        run: the run's folder.
        sites: the sites' folders.
        table: the run's complete settings.

    Returns:
        The worst cases, the best ones, and a typical one of each site that is not among them; empty when no
        site has test cases.
    """
    place = find_place(section(table, "train", PlaceSettings))
    shared = load_model(run / "model.safetensors").to(place.device)
    cases: list[Predicted] = []
    for site in sites:
        own = run / STATE / site.name / PERSONAL
        model = load_model(own).to(place.device) if own.is_file() else shared
        cases += _candidates(site, table, model, place)
    chosen = choose(cases)
    folder = run / "overlays"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    overlays = []
    for number, (kind, case) in enumerate(chosen, 1):
        overlays.append(Overlay(f"{number:02d}-{kind}.png", case.site, case.case, case.dice, kind))
        draw(case, folder / overlays[-1].file)
    if overlays:
        _write_sheet([folder / overlay.file for overlay in overlays], folder / "sheet.png")
    write_atomic(
        folder / "overlays.json", json.dumps([dataclasses.asdict(overlay) for overlay in overlays], indent=1)
    )
    return overlays


def choose(cases: list[Predicted]) -> list[tuple[Kind, Predicted]]:
    """The cases worth a look: worst first, then the best, then the typical ones of the sites left out.

    Where nothing is to be found, an empty prediction scores 1 and shows nothing: the best cases have a lesion.
    """
    ranked = sorted(cases, key=lambda case: (case.dice, case.site, case.case))
    worst = ranked[:EACH]
    best = [case for case in ranked[len(worst) :] if case.truth.any()][::-1][:EACH]
    chosen: list[tuple[Kind, Predicted]] = [*(("worst", case) for case in worst), *(("best", case) for case in best)]
    left = sorted({case.site for case in cases} - {case.site for _, case in chosen})
    for site in left[:OTHER_SITES]:
        own = [case for case in ranked if case.site == site]
        chosen.append(("typical", own[len(own) // 2]))
    return chosen


def draw(case: Predicted, path: Path) -> None:
    """One case as a PNG: the image, both outlines, and a strip with their colours and the Dice."""
    height = TILE_INCHES + STRIP_INCHES
    with matplotlib.rc_context({"font.family": "DejaVu Sans", "font.size": 8.5}):
        figure = Figure((TILE_INCHES, height), dpi=DPI, facecolor="#11161d")
        axes = figure.add_axes((0, STRIP_INCHES / height, 1, TILE_INCHES / height))
        rows, columns = case.truth.shape
        axes.imshow(case.image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="bicubic")
        _outline(axes, case.truth, TRUTH, 2.2)
        _outline(axes, case.prediction, PREDICTION, 1.3)
        axes.set(xlim=(-0.5, columns - 0.5), ylim=(rows - 0.5, -0.5))
        axes.set_axis_off()
        middle = STRIP_INCHES / height / 2
        for left, word, colour in ((0.04, "truth", TRUTH), (0.27, "prediction", PREDICTION)):
            figure.add_artist(Line2D([left, left + 0.06], [middle, middle], color=colour, lw=2.2))
            figure.text(left + 0.08, middle, word, color="white", va="center_baseline")
        figure.text(
            0.96, middle, f"Dice {case.dice:.3f}", color="white", va="center_baseline", ha="right", weight="bold"
        )
        figure.savefig(path)


def _outline(axes: Axes, labels: Pixels, colour: str, width: float) -> None:
    """The border of every class, along the pixels' edges, closed also where it leaves the image."""
    padded = np.pad(labels, 1)
    rows, columns = np.arange(-1, len(padded) - 1), np.arange(-1, padded.shape[1] - 1)
    halo = [withStroke(linewidth=width + 1.2, foreground="#000000aa")]
    for label in np.unique(labels[labels > 0]):
        inside = (padded == label).astype(np.float32)
        axes.contour(columns, rows, inside, levels=[0.5], colors=colour, linewidths=width, path_effects=halo)


def _candidates(folder: Path, table: Table, model: nn.Module, place: Place) -> list[Predicted]:
    """Those of a site's test cases that can be among the chosen: its best, its worst, its middle."""
    data, architecture = section(table, "data", SiteData), section(table, "model", Architecture)
    site = read_site(folder, seed=int(table["seed"]), val=data.val, test=data.test)
    images = load_split(site, "test", data.size, architecture.in_channels, architecture.num_classes)
    cases = list(_predict(site.name, images, model, architecture.num_classes, place))
    ranked = sorted(cases, key=lambda case: case.dice)
    ends = [*ranked[:EACH], *[case for case in ranked if case.truth.any()][-EACH:], *ranked[len(ranked) // 2 :][:1]]
    return list({case.case: case for case in ends}.values())


@torch.inference_mode()
def _predict(site: str, images: Images, model: nn.Module, num_classes: int, place: Place) -> Iterator[Predicted]:
    row = 0
    for batch in predictions(Inference(model, place, None), images, place):
        scores = dice(batch.labels, batch.truth, num_classes).tolist()
        for score, mask in zip(scores, batch.labels.cpu().numpy(), strict=True):
            yield Predicted(site, images.names[row], score, images.images[row], images.masks[row], mask)
            row += 1


def _write_sheet(files: list[Path], path: Path) -> None:
    tiles = [Image.open(file).convert("RGB") for file in files]
    (width, height), gap = tiles[0].size, 12
    columns = min(COLUMNS, len(tiles))
    rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (width + gap) - gap, rows * (height + gap) - gap), "white")
    for number, tile in enumerate(tiles):
        row, column = divmod(number, columns)
        sheet.paste(tile, (column * (width + gap), row * (height + gap)))
    sheet.save(path)
