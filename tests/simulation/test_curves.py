import copy
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from PIL import Image

from simulation.curves import DARK, LIGHT, curve_svgs, write_curves
from tests.finished_run import SITES, record

HISTORY = [record(number, 6) for number in range(1, 7)]


def words(svg: str) -> list[str]:
    return [
        (node.text or "").strip() for node in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")
    ]


def test_lines_are_named_where_they_end() -> None:
    panels = curve_svgs(HISTORY, LIGHT)
    dice, sites, loss = (words(svg) for svg in panels.values())
    assert list(panels) == ["Validation Dice", "Validation Dice by site", "Training loss"]
    assert {f"all images  {HISTORY[-1]['global_dice']:.3f}", "best: round 6"} <= set(dice)
    for name, *_ in SITES:
        assert f"{name}  {HISTORY[-1]['sites'][name]['dice']:.3f}" in sites
    assert f"all sites  {HISTORY[-1]['train_loss']:.3f}" in loss


def test_names_of_close_lines_stand_apart() -> None:
    history = copy.deepcopy(HISTORY)
    for entry in history[-1]["sites"].values():
        entry["dice"] = 0.8
    drawing = ElementTree.fromstring(curve_svgs(history, LIGHT)["Validation Dice by site"])
    heights = []
    for node in drawing.iter("{http://www.w3.org/2000/svg}text"):
        if (node.text or "").endswith("0.800"):
            heights.append(float(node.attrib["y"]))
    heights.sort()
    assert len(heights) == len(SITES)
    assert all(below - above > 9 for above, below in pairwise(heights))


def test_of_many_sites_the_first_and_the_last_are_named() -> None:
    history = copy.deepcopy(HISTORY)
    for entry in history:
        entry["sites"] = {f"site-{number}": {"dice": 0.1 * number} for number in range(1, 10)}
    named = [
        word for word in words(curve_svgs(history, LIGHT)["Validation Dice by site"]) if word.startswith("site-")
    ]
    assert named == ["site-9  0.900", "site-1  0.100"]


def test_a_long_name_is_shortened() -> None:
    history = [HISTORY[0] | {"sites": {"hospital-of-the-holy-spirit-07": {"dice": 0.5}}}]
    assert "hospital-…rit-07  0.500" in words(curve_svgs(history, LIGHT)["Validation Dice by site"])


def test_a_run_without_scores_says_so() -> None:
    for history in ([], [record(1, 6, scored=False)]):
        assert "no round has a value yet" in words(curve_svgs(history, LIGHT)["Validation Dice"])


def test_values_that_are_not_finite_leave_a_gap() -> None:
    history = [HISTORY[0], HISTORY[1] | {"train_loss": float("nan")}]
    assert f"all sites  {HISTORY[0]['train_loss']:.3f}" in words(curve_svgs(history, LIGHT)["Training loss"])


@pytest.mark.parametrize("name", ["a $\\frac b", "开罗", "<&>"])
def test_any_name_is_drawn_as_it_is(name: str, tmp_path: Path) -> None:
    history = [HISTORY[0] | {"sites": {name: {"dice": 0.5}}}]
    assert f"{name}  0.500" in words(curve_svgs(history, LIGHT)["Validation Dice by site"])
    write_curves(history, tmp_path / "curves.png")


def test_drawings_are_the_same_each_time_and_follow_the_theme() -> None:
    assert curve_svgs(HISTORY, LIGHT) == curve_svgs(HISTORY, LIGHT)
    assert DARK.ink in curve_svgs(HISTORY, DARK)["Validation Dice"]


def test_the_file_holds_all_panels_side_by_side(tmp_path: Path) -> None:
    write_curves(HISTORY, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.width > 3 * picture.height
        assert picture.getextrema()[0][0] < 64  # ink on paper
