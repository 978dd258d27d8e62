"""The curves of a run: Dice of the federation and of each site, and the training loss, round by round."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from simulation.drawing import COLOURS, PRINT, Theme, as_svg, label_ends, style
from simulation.drawing import DARK as DARK
from simulation.drawing import LIGHT as LIGHT

Record = Mapping[str, Any]
Points = list[tuple[int, float]]

PANEL_INCHES = (3.9, 2.8)


def write_curves(history: Sequence[Record], path: Path) -> Path:
    """All panels side by side as a PNG file.

    Args:
        history: the records of the rounds, as in result.json.
        path: the file to write.
    """
    with style(PRINT):
        width, height = PANEL_INCHES
        figure = Figure((width * len(PANELS), height), layout=ConstrainedLayoutEngine(wspace=0.08))
        for axes, draw in zip(figure.subplots(1, len(PANELS)), PANELS.values(), strict=True):
            draw(axes, history, PRINT)
        figure.savefig(path, dpi=160)
    return path


def curve_svgs(history: Sequence[Record], theme: Theme) -> dict[str, str]:
    """Each panel as an SVG of its own, by its title."""
    drawings = {}
    with style(theme):
        for title, draw in PANELS.items():
            figure = Figure(PANEL_INCHES, layout="constrained")
            draw(figure.subplots(), history, theme)
            drawings[title] = as_svg(figure)
    return drawings


def _draw_dice(axes: Axes, history: Sequence[Record], theme: Theme) -> None:
    axes.set_title("Validation Dice")
    lines = {"all images": _points(history, "global_dice"), "worst site": _points(history, "worst_site_dice")}
    if _frame(axes, history, list(lines.values()), theme):
        label_ends(axes, _plot(axes, lines, [theme.ink, theme.muted]))
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
        label_ends(axes, _plot(axes, lines, COLOURS))
    else:  # colours and names for more would be a tangle: the first and the last stand out
        order = sorted(lines, key=lambda name: lines[name][-1][1])
        rest = {name: lines[name] for name in order[1:-1]}
        _plot(axes, rest, [theme.faint] * len(rest), width=1)
        ends = {name: lines[name] for name in (order[-1], order[0])}
        label_ends(axes, _plot(axes, ends, COLOURS))


def _draw_loss(axes: Axes, history: Sequence[Record], theme: Theme) -> None:
    axes.set_title("Training loss")
    lines = {"all sites": _points(history, "train_loss")}
    if _frame(axes, history, list(lines.values()), theme, dice=False):
        label_ends(axes, _plot(axes, lines, [theme.ink]))


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
