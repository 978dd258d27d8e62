"""Curves and forest: every contestant is named, and only a difference that is shown has colour."""

from itertools import pairwise
from xml.etree import ElementTree

from matplotlib.figure import Figure

from simulation.compare.drawings import curves_svg, forest_svg
from simulation.compare.findings import Difference
from simulation.compare.statistics import Interval
from simulation.drawing import COLOURS, DARK, LIGHT, label_ends

SVG = "{http://www.w3.org/2000/svg}"


def words(svg: str) -> list[str]:
    return [(node.text or "").strip() for node in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def difference(name: str, low: float, high: float, p: float) -> Difference:
    return Difference(name, Interval((low + high) / 2, low, high), p, p, 1 if low + high > 0 else -1, 1, 1, 1, "")


def test_all_of_many_contestants_are_named_apart() -> None:
    curves = {f"strategy{n:02}": ((1, 0.5, 0.4, 0.6), (2, 0.7, 0.6, 0.8)) for n in range(14)}
    svg = curves_svg(curves, "strategy00", LIGHT)
    assert {f"{name}  0.700" for name in curves} <= set(words(svg))
    heights = sorted(
        float(node.attrib["y"])
        for node in ElementTree.fromstring(svg).iter(f"{SVG}text")
        if (node.text or "").strip().startswith("strategy")
    )
    assert min(below - above for above, below in pairwise(heights)) > 8
    assert svg == curves_svg(curves, "strategy00", LIGHT)


def test_names_of_one_colour_have_their_lines_dashes() -> None:
    figure = Figure()
    axes = figure.subplots()
    label_ends(axes, {"plain": (0.7, COLOURS[0]), "dashed": (0.6, COLOURS[0])}, dashes={"dashed": "--"})
    assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
    dashed = {f"s{n}": ((1, 0.5, 0.4, 0.6), (2, 0.7, 0.6, 0.8)) for n in range(len(COLOURS) + 2)}
    lines = curves_svg(dashed, "s0", LIGHT).count("stroke-dasharray")
    assert lines == 2  # the last one's curve, and the sample beside its name


def test_a_curve_of_one_round_and_one_without_rounds_are_drawn() -> None:
    assert "a  0.500" in words(curves_svg({"a": ((1, 0.5, 0.5, 0.5),), "b": ()}, "a", DARK))


def test_the_forest_says_every_interval() -> None:
    found = [difference("up", 0.01, 0.03, 0.01), difference("zero", -0.01, 0.03, 0.01)]
    svg = forest_svg(found, "fedavg", LIGHT)
    assert {"up", "zero", "+0.020 (+0.010 to +0.030)", "Dice - Dice of fedavg, on the same images"} <= set(words(svg))
    assert COLOURS[0].lower() in svg.lower()


def test_what_is_not_shown_has_no_colour() -> None:
    for one in (difference("zero", -0.01, 0.03, 0.01), difference("ranks", 0.01, 0.03, 0.2)):
        assert COLOURS[0].lower() not in forest_svg([one], "fedavg", LIGHT).lower()
