import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageColor

from client.images import Pixels, read_image, read_mask
from protocol.settings import Table, resolve, section
from simulation.overlays import PREDICTION, TRUTH, Predicted, ReportSettings, choose, draw, make_overlays
from simulation.phantoms import phantom
from urwkv import URWKV, Architecture
from urwkv.weights import load_model, save_model

SIDE = 32
TABLE: Table = resolve({"data.size": SIDE, "train.device": "cpu", "train.threads": 1})


def make_site(folder: Path, seed: int, tests: int) -> Path:
    """A site of phantoms: one training case, one for validation, `tests` for testing."""
    rng = np.random.default_rng(seed)
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    with (folder / "site.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["name", "split"])
        for number, split in enumerate(["train", "val", *["test"] * tests]):
            image, mask = phantom("ultrasound", SIDE, rng)
            Image.fromarray(image).save(folder / "images" / f"c{number}.png")
            Image.fromarray(mask).save(folder / "masks" / f"c{number}.png")
            rows.writerow([f"c{number}", split])
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    architecture = Architecture(variant="small", norm="group")
    (tmp_path / "run").mkdir()
    save_model(tmp_path / "run" / "model.safetensors", URWKV.from_architecture(architecture), architecture)
    return tmp_path / "run"


def dice_by_hand(model: URWKV, site: Path, case: str) -> float:
    pixels = np.asarray(read_image(site / "images" / f"{case}.png", 3), np.float32)
    with torch.inference_mode():
        logits = model(torch.from_numpy((pixels - 127.5) / 63.75).permute(2, 0, 1)[None])
    prediction = logits[0, 0].numpy() > 0
    truth = read_mask(site / "masks" / f"{case}.png", 1) > 0
    areas = int(prediction.sum() + truth.sum())
    return float(2 * (prediction & truth).sum() / areas)


def test_a_run_gets_pictures_and_their_index(run: Path, tmp_path: Path) -> None:
    tests = {"a": 7, "b": 5, "c": 2}
    sites = {name: make_site(tmp_path / name, count, count) for name, count in tests.items()}
    (run / "overlays").mkdir()
    (run / "overlays" / "old.png").write_bytes(b"of an earlier model")
    overlays = make_overlays(run, list(sites.values()), TABLE)
    index = json.loads((run / "overlays" / "overlays.json").read_text())
    assert index == [dataclasses.asdict(entry) for entry in overlays]
    files = {path.name for path in (run / "overlays").iterdir()}
    assert files == {"sheet.png", "overlays.json"} | {entry.file for entry in overlays}
    assert {entry.site for entry in overlays} == {"a", "b", "c"}
    assert [entry.kind for entry in overlays][:8] == ["worst"] * 4 + ["best"] * 4

    model = load_model(run / "model.safetensors")
    cases = [(name, f"c{number}") for name, count in tests.items() for number in range(2, 2 + count)]
    dice = {(name, case): dice_by_hand(model, sites[name], case) for name, case in cases}
    assert [entry.dice for entry in overlays] == pytest.approx([dice[entry.site, entry.case] for entry in overlays])
    ranked = sorted(dice.values())
    assert [entry.dice for entry in overlays[:8]] == pytest.approx(ranked[:4] + ranked[:-5:-1])


def test_a_site_with_a_model_of_its_own_is_drawn_with_it(run: Path, tmp_path: Path) -> None:
    sites = [make_site(tmp_path / name, 1, 1) for name in ("a", "b")]
    model = load_model(run / "model.safetensors")
    model.head.bias.data.fill_(50.0)  # lesion everywhere
    (run / "state" / "b").mkdir(parents=True)
    save_model(run / "state" / "b" / "personal.safetensors", model, model.architecture)
    dice = {entry.site: entry.dice for entry in make_overlays(run, sites, TABLE)}
    shared = load_model(run / "model.safetensors")
    assert dice["a"] == pytest.approx(dice_by_hand(shared, sites[0], "c2"))
    assert dice["b"] == pytest.approx(dice_by_hand(model, sites[1], "c2"))
    assert dice_by_hand(model, sites[1], "c2") != dice_by_hand(shared, sites[1], "c2")


def test_sites_without_test_cases_give_no_pictures(run: Path, tmp_path: Path) -> None:
    assert make_overlays(run, [make_site(tmp_path / "a", 0, 0)], TABLE) == []
    assert [path.name for path in (run / "overlays").iterdir()] == ["overlays.json"]
    assert (run / "overlays" / "overlays.json").read_text() == "[]"


def case(site: str, dice: float, lesion: bool = True) -> Predicted:
    mask = np.full((2, 2), lesion, np.uint8)
    return Predicted(site, f"{dice}", dice, np.zeros((2, 2, 3), np.uint8), mask, mask)


def test_the_worst_the_best_and_every_site() -> None:
    cases = [case("a", number / 100) for number in range(20)]
    cases += [case("b", number) for number in (0.05, 0.06, 0.07)]
    chosen = [(kind, entry.site, entry.dice) for kind, entry in choose(cases)]
    assert chosen[:4] == [("worst", "a", 0.0), ("worst", "a", 0.01), ("worst", "a", 0.02), ("worst", "a", 0.03)]
    assert chosen[4:8] == [("best", "a", 0.19), ("best", "a", 0.18), ("best", "a", 0.17), ("best", "a", 0.16)]
    assert chosen[8:] == [("typical", "b", 0.06)]


def test_few_cases_are_shown_once_and_the_best_have_a_lesion() -> None:
    cases = [case("a", 1.0, lesion=False), *(case("a", number / 10) for number in range(6))]
    assert [(kind, entry.dice) for kind, entry in choose(cases)] == [
        ("worst", 0.0),
        ("worst", 0.1),
        ("worst", 0.2),
        ("worst", 0.3),
        ("best", 0.5),
        ("best", 0.4),
    ]


def rectangle(top: int, left: int, bottom: int, right: int) -> Pixels:
    mask = np.zeros((20, 20), np.uint8)
    mask[top:bottom, left:right] = 1
    return mask


def drawn(path: Path, truth: Pixels, prediction: Pixels) -> tuple[set[tuple[int, int]], set[tuple[int, int]]]:
    """The cells of a 20 x 20 grid over the picture in which each outline's colour is found."""
    draw(Predicted("s", "c", 0.5, np.full((20, 20, 3), 90, np.uint8), truth, prediction), path)
    pixels = np.asarray(Image.open(path).convert("RGB"), np.int32)
    side = pixels.shape[1]
    cells = []
    for colour in (TRUTH, PREDICTION):
        near = np.abs(pixels[:side] - ImageColor.getrgb(colour)).sum(axis=2) < 60
        cells.append({(int(20 * row / side), int(20 * column / side)) for row, column in np.argwhere(near)})
    return cells[0], cells[1]


def test_outlines_follow_the_edges_of_the_masks(tmp_path: Path) -> None:
    truth, prediction = drawn(tmp_path / "a.png", rectangle(2, 3, 8, 9), rectangle(12, 11, 18, 17))
    assert {row for row, _ in truth} <= {1, 2, 3, 4, 5, 6, 7, 8}
    assert {(4, 2), (4, 9)} <= truth | {(4, 3), (4, 8)}
    assert (5, 6) not in truth  # an outline, not an area
    assert {row for row, _ in prediction} <= set(range(11, 19))


def test_a_lesion_at_the_border_is_closed_and_none_draws_nothing(tmp_path: Path) -> None:
    truth, prediction = drawn(tmp_path / "a.png", rectangle(0, 0, 20, 5), rectangle(0, 0, 0, 0))
    assert {(0, 2), (10, 0), (19, 2)} <= truth
    assert prediction == set()


@pytest.mark.parametrize(
    ("overlays", "public", "own"), [("public", True, False), ("all", True, True), ("none", False, False)]
)
def test_own_pictures_are_shown_only_on_request(overlays: str, public: bool, own: bool) -> None:
    settings = section(resolve({"report.overlays": overlays}), "report", ReportSettings)
    assert (settings.allow(public=True), settings.allow(public=False)) == (public, own)
