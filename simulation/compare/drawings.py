"""The comparison's two drawings: learning curves by contestant, and the forest of differences from the reference."""

import math
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from simulation.compare.findings import Curve, Difference
from simulation.compare.wording import sign, spoken
from simulation.drawing import COLOURS, Theme, as_svg, label_ends, style

WIDTH = 7.6
DASHES = ["-", "--", ":", "-."]
"""Contestants beyond the number of colours have the same colours, and other lines."""


def curves_svg(curves: Mapping[str, Curve], reference: str, theme: Theme) -> str:
    """Validation Dice by round: the mean over seeds, and a band from the lowest to the highest seed.

    The reference is drawn in ink; the order of `curves` gives the others their colours.
    """
    height = max(3.2, 0.24 * len(curves) + 1.2)
    others = [name for name in curves if name != reference]
    with style(theme):
        figure = Figure((WIDTH, height), layout="constrained")
        axes = figure.subplots()
        ends, dashes = {}, {}
        for name, points in curves.items():
            if not points:
                continue
            place = others.index(name) if name != reference else 0
            colour = theme.ink if name == reference else COLOURS[place % len(COLOURS)]
            dash = "-" if name == reference else DASHES[place // len(COLOURS) % len(DASHES)]
            rounds, means, lows, highs = zip(*points, strict=True)
            axes.plot(rounds, means, dash, color=colour, lw=2, marker="o" if len(points) == 1 else "")
            axes.fill_between(rounds, lows, highs, color=colour, alpha=0.12, lw=0)
            ends[name], dashes[name] = (means[-1], colour), dash
        axes.set_xlabel("round")
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
        low, high = (edge for edge in axes.get_ylim())
        axes.set_ylim(max(0.0, math.floor(20 * low) / 20), min(1.0, math.ceil(20 * high) / 20))
        label_ends(axes, ends, 0.24 / (height - 1.0), dashes)
        return as_svg(figure)


def forest_svg(found: Sequence[Difference], reference: str, theme: Theme) -> str:
    """Each contestant's paired difference from the reference with its interval, the highest first.

    Only where interval and ranks agree that there is one is it in colour.
    """
    rows = sorted(found, key=lambda one: one.interval.estimate)
    with style(theme):
        figure = Figure((WIDTH, 0.32 * len(rows) + 0.9), layout="constrained")
        axes = figure.subplots()
        axes.axvline(0, color=theme.ink, lw=1)
        for height, one in enumerate(rows):
            bounds = one.interval
            colour = COLOURS[0] if sign(bounds, one.p_holm, one.leans) else theme.muted
            axes.plot([bounds.low, bounds.high], [height, height], color=colour, lw=2)
            axes.plot([bounds.estimate], [height], "s", color=colour, ms=6)
            place = axes.get_yaxis_transform()
            axes.text(1.02, height, spoken(bounds), transform=place, va="center", color=theme.ink)
        axes.set_yticks(range(len(rows)), [one.name for one in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.set_xlabel(f"Dice - Dice of {reference}, on the same images")
        return as_svg(figure)
