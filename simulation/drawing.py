"""How a page's drawings look: colours, type, lines that are named where they end, and SVG that follows the page."""

import io
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe and Ito's colours without yellow and black, in an order whose neighbours differ for every kind of sight.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
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


@contextmanager
def style(theme: Theme) -> Iterator[None]:
    """Draw in the colours of a theme inside the `with`."""
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


def as_svg(figure: Figure) -> str:
    """The figure, drawn within `style`, as SVG whose letters are the page's and whose background is nothing."""
    drawing = io.StringIO()
    figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None})
    return drawing.getvalue().replace("'DejaVu Sans'", "system-ui, sans-serif")


def label_ends(
    axes: Axes, ends: Mapping[str, tuple[float, str]], gap: float = LABEL_GAP, dashes: Mapping[str, str] | None = None
) -> None:
    """Each line's name and last value to the right of its end, pushed apart where they would touch.

    Args:
        ends: last value and colour by name.
        gap: between two names, as a share of the axes' height.
        dashes: the lines that are not solid, by name.
    """
    low, high = axes.get_ylim()
    gap, ceiling = gap * (high - low), math.inf
    names = sorted(ends, key=lambda name: -ends[name][0])
    heights = []
    for name in names:
        heights.append(min(ends[name][0], ceiling))
        ceiling = heights[-1] - gap
    lift = max(0.0, low - min(heights))
    for name, height in zip(names, heights, strict=True):
        value, colour = ends[name]
        place = axes.get_yaxis_transform()
        dash = (dashes or {}).get(name, "-")
        axes.plot([1.02, 1.07], [height + lift] * 2, dash, color=colour, lw=2, transform=place, clip_on=False)
        axes.text(1.085, height + lift, f"{_short(name)}  {value:.3f}", transform=place, va="center")


def _short(name: str) -> str:
    """A name that leaves room for the lines: its beginning and its end."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 7]}…{name[-6:]}"
