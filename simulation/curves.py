"""The curves of a run: Dice of the federation and of each site, and the training loss, round by round."""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

Record = Mapping[str, Any]
Points = list[tuple[int, float]]

# Okabe and Ito's colours without yellow and black, in an order whose neighbours differ for every kind of sight.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
PANEL_INCHES = (3.9, 2.8)
LONGEST_NAME = 16  # letters of a site in a picture
LABEL_GAP = 0.08  # of the axis, between the names at the lines' ends


@dataclass(frozen=True)
class Theme:
    """Colours of what is not data; `paper` None leaves the background to the page."""

    ink: str
    muted: str
    faint: str
    grid: str
    paper: str | None


PRINT = Theme("#1c2430", "#5b6675", "#b4bdc8", "#dfe4ea", "#ffffff")
LIGHT = Theme("#1c2430", "#5b6675", "#b4bdc8", "#dfe4ea", None)
DARK = Theme("#e6ebf2", "#9aa7b8", "#4d5a6b", "#303a48", None)


def write_curves(history: Sequence[Record], path: Path) -> Path:
    """All panels side by side as a PNG file.

    Args:
        history: the records of the rounds, as in result.json.
        path: the file to write.
    """
    with _style(PRINT):
        width, height = PANEL_INCHES
        figure = Figure((width * len(PANELS), height), layout=ConstrainedLayoutEngine(wspace=0.08))
        for axes, draw in zip(figure.subplots(1, len(PANELS)), PANELS.values(), strict=True):
            draw(axes, history, PRINT)
        figure.savefig(path, dpi=160)
    return path


def curve_svgs(history: Sequence[Record], theme: Theme) -> dict[str, str]:
    """Each panel as an SVG of its own, by its title."""
    drawings = {}
    with _style(theme):
        for title, draw in PANELS.items():
            figure = Figure(PANEL_INCHES, layout="constrained")
            draw(figure.subplots(), history, theme)
            drawing = io.StringIO()
            figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
            drawings[title] = drawing.getvalue().replace("'DejaVu Sans'", "system-ui, sans-serif")
    return drawings


@contextmanager
def _style(theme: Theme) -> Iterator[None]:
    with matplotlib.rc_context(_settings(theme)), warnings.catch_warnings():
        # a site's name in letters that the font lacks is whole in the SVG, and boxes in the PNG
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield


def _settings(theme: Theme) -> dict[str, Any]:
    return {
        "axes.edgecolor": theme.grid,
        "axes.facecolor": theme.paper or "none",
        "axes.grid": True,
        "axes.grid.axis": "y",
        "axes.spines.left": False,
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlecolor": theme.ink,
        "axes.titlelocation": "left",
        "axes.titlepad": 18,
        "axes.titlesize": 11,
        "axes.titleweight": "bold",
        "axes.labelcolor": theme.muted,
        "figure.facecolor": theme.paper or "none",
        "font.family": "DejaVu Sans",
        "font.size": 9,
        "grid.color": theme.grid,
        "grid.linewidth": 0.8,
        "lines.linewidth": 2,
        "lines.solid_capstyle": "round",
        "svg.fonttype": "none",
        "svg.hashsalt": "curves",
        "text.parse_math": False,
        "text.color": theme.ink,
        "xtick.color": theme.grid,
        "xtick.labelcolor": theme.muted,
        "ytick.labelcolor": theme.muted,
        "ytick.left": False,
    }


def _draw_dice(axes: Axes, history: Sequence[Record], theme: Theme) -> None:
    axes.set_title("Validation Dice")
    lines = {"all images": _points(history, "global_dice"), "worst site": _points(history, "worst_site_dice")}
    if _frame(axes, history, list(lines.values()), theme):
        _label(axes, _plot(axes, lines, [theme.ink, theme.muted]))
        best, dice = max(lines["all images"], key=lambda point: point[1])
        axes.plot(
            [best], [dice], "o", ms=7, mfc=theme.paper or "none", mec=theme.ink, mew=1.8, zorder=4, clip_on=False
        )
        axes.annotate(
            f"best: round {best}", (best, dice), (0, 8), textcoords="offset points", ha="right", color=theme.muted
        )


def _draw_sites(axes: Axes, history: Sequence[Record], theme: Theme) -> None:
    axes.set_title("Validation Dice by site")
    names = sorted({name for record in history for name in record["sites"]})
    lines = {
        name: _points([record["sites"].get(name, {}) | {"round": record["round"]} for record in history], "dice")
        for name in names
    }
    lines = {name: points for name, points in lines.items() if points}
    if not _frame(axes, history, list(lines.values()), theme):
        return
    if len(lines) <= len(COLOURS):
        _label(axes, _plot(axes, lines, COLOURS))
    else:  # colours and names for more would be a tangle: the first and the last stand out
        order = sorted(lines, key=lambda name: lines[name][-1][1])
        rest = {name: lines[name] for name in order[1:-1]}
        _plot(axes, rest, [theme.faint] * len(rest), width=1)
        ends = {name: lines[name] for name in (order[-1], order[0])}
        _label(axes, _plot(axes, ends, COLOURS))


def _draw_loss(axes: Axes, history: Sequence[Record], theme: Theme) -> None:
    axes.set_title("Training loss")
    lines = {"all sites": _points(history, "train_loss")}
    if _frame(axes, history, list(lines.values()), theme, dice=False):
        _label(axes, _plot(axes, lines, [theme.ink]))


PANELS: dict[str, Callable[[Axes, Sequence[Record], Theme], None]] = {
    "Validation Dice": _draw_dice,
    "Validation Dice by site": _draw_sites,
    "Training loss": _draw_loss,
}


def _points(records: Sequence[Record], key: str) -> Points:
    """The rounds at which `key` has a finite value, and that value."""
    pairs = [(record["round"], record.get(key)) for record in records]
    return [(number, float(value)) for number, value in pairs if value is not None and math.isfinite(value)]


def _frame(axes: Axes, history: Sequence[Record], lines: list[Points], theme: Theme, dice: bool = True) -> bool:
    """Axes that fit the lines; without a point, words that say so, and False."""
    values = [value for points in lines for _, value in points]
    axes.set_xlabel("round")
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    if not values:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no round has a value yet", ha="center", transform=axes.transAxes, color=theme.muted)
        return False
    last = max(record["round"] for record in history)
    axes.set_xlim(0.7, last + 0.3)
    low, high = math.floor(10 * min(values)) / 10, math.ceil(10 * max(values)) / 10
    axes.set_ylim(low if dice else 0, high + 0.1 * (high == low))
    return True


def _plot(
    axes: Axes, lines: Mapping[str, Points], colours: list[str], width: float = 2.0
) -> dict[str, tuple[float, str]]:
    """Draw the lines; returns each one's last height and colour."""
    ends = {}
    for (name, points), colour in zip(lines.items(), colours, strict=False):
        if points:
            marker = "o" if len(points) == 1 else ""
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, lw=width, label=name, clip_on=False)
            ends[name] = (points[-1][1], colour)
    return ends


def _label(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Each line's name and last value to the right of its end, pushed apart where they would touch."""
    low, high = axes.get_ylim()
    gap, ceiling = LABEL_GAP * (high - low), math.inf
    names = sorted(ends, key=lambda name: -ends[name][0])
    heights = []
    for name in names:
        heights.append(min(ends[name][0], ceiling))
        ceiling = heights[-1] - gap
    lift = max(0.0, low - min(heights))
    for name, height in zip(names, heights, strict=True):
        value, colour = ends[name]
        place = axes.get_yaxis_transform()
        axes.plot([1.05], [height + lift], "o", color=colour, ms=6, transform=place, clip_on=False)
        axes.text(1.085, height + lift, f"{_short(name)}  {value:.3f}", transform=place, va="center")


def _short(name: str) -> str:
    """A name that leaves room for the lines: its beginning and its end."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 7]}…{name[-6:]}"
