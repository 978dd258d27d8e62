"""`fedurwkv predict`, as a user types it."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fedurwkv
from tests.client.models import write_model
from urwkv import Architecture


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "all", bias=5.0, data_size="32")
    write_model(tmp_path / "none", bias=-5.0, data_size="32")
    (tmp_path / "in").mkdir()
    for number, (width, height) in enumerate([(40, 30), (32, 32), (100, 10)]):
        pixels = np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"c{number}.png")


def predict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fedurwkv", "predict", *words])
    with pytest.raises(SystemExit) as end:
        fedurwkv.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


def names(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


def rows(out: str) -> list[list[str]]:
    with Path(out, "areas.csv").open(newline="") as file:
        return list(csv.reader(file))


def test_masks_overlays_and_areas(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, error = predict(monkeypatch, capsys, "all", "in", "--out", "a/b")
    assert (code, error) == (0, "")
    assert said.startswith("3 pictures in ")
    assert said.endswith(" s on cpu: masks, overlays and areas.csv in a/b\n")
    assert rows("a/b") == [
        ["name", "class", "pixels", "share"],
        ["c0", "1", "1200", "1.000000"],
        ["c1", "1", "1024", "1.000000"],
        ["c2", "1", "1000", "1.000000"],
    ]
    for name, size in {"c0": (40, 30), "c1": (32, 32), "c2": (100, 10)}.items():
        with Image.open(f"a/b/masks/{name}.png") as mask:
            assert (mask.mode, mask.size) == ("L", size)
            assert (np.asarray(mask) == 1).all()
        with Image.open(f"a/b/overlays/{name}.png") as overlay:
            assert overlay.mode == "RGB"
            assert max(overlay.size) >= 256


def test_one_file_and_no_overlays(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, said, _ = predict(monkeypatch, capsys, "none", "in/c1.png", "--out", "o", "--no-overlays", "--tile", "32")
    assert code == 0
    assert said.startswith("1 picture in ")
    assert names("o") == ["areas.csv", "masks"]
    assert rows("o")[1:] == [["c1", "1", "0", "0.000000"]]


def test_every_class_of_foreground_has_its_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_model(tmp_path / "two", Architecture("small", norm="group", num_classes=3), bias=5.0, data_size="32")
    assert predict(monkeypatch, capsys, "two", "in/c0.png", "--out", "o")[0] == 0
    assert rows("o")[1:] == [["c0", "1", "0", "0.000000"], ["c0", "2", "1200", "1.000000"]]


@pytest.mark.parametrize("tile", [[], ["--tile", "32"]])
def test_what_cannot_be_read_is_named_and_the_rest_is_done(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tile: list[str]
) -> None:
    Path("in/c15.png").write_text("no picture")  # between others
    Path("in/z.png").write_text("no picture")  # the last
    Path("in/scan.dcm").touch()
    code, said, error = predict(monkeypatch, capsys, "all", "in", "--out", "o", *tile)
    assert code == 1
    assert error == "error: 3 of 6 were left out, named above with the cure\n"
    lines = said.splitlines()
    assert lines[0] == "left out  in/scan.dcm is not one of png, jpg, jpeg, tif, tiff: convert it, or move it away"
    assert lines[1] == "left out  in/c15.png is not an image that can be read: export it again as PNG"
    assert lines[2].startswith("left out  in/z.png is not an image")
    assert lines[3].startswith("3 pictures in ")
    assert [row[0] for row in rows("o")[1:]] == ["c0", "c1", "c2"]
    assert names("o/masks") == ["c0.png", "c1.png", "c2.png"]


def test_what_was_done_before_an_interruption_is_in_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from client import predict as module

    saved = module._save

    def save(out, picture, labels):  # type: ignore[no-untyped-def]
        if picture.path.stem == "c2":
            raise KeyboardInterrupt
        saved(out, picture, labels)

    monkeypatch.setattr(module, "_save", save)
    code, _, error = predict(monkeypatch, capsys, "all", "in", "--out", "o")
    assert code == 1
    assert error == "error: interrupted\n"
    assert [row[0] for row in rows("o")[1:]] == ["c0", "c1"]


def test_progress_without_a_terminal_is_plain_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("client.predict.EVERY", -1.0)
    said = predict(monkeypatch, capsys, "all", "in", "--out", "o")[1]
    assert said.splitlines()[:3] == ["33% of 3 pictures", "67% of 3 pictures", "100% of 3 pictures"]


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["nowhere", "in", "--out", "o"], 1, "no model file nowhere"),
        (["all", "nowhere", "--out", "o"], 1, "no file or folder nowhere"),
        (["all", "in"], 2, "Missing option '--out'"),
        (["all", "in", "--out", "in"], 1, "in is not empty: choose another --out, or remove what it holds"),
        (["all", "in", "--out", "all"], 1, "all is a file: choose another --out"),
        (["all", "in", "--out", "o", "--tile", "16"], 2, "--tile = 16 must be at least 32 pixels"),
        (["all", "in", "--out", "o", "--size", "8"], 2, "--size = 8 must be at least 16 pixels"),
        (["all", "in", "--out", "o", "--tile", "64", "--size", "64"], 2, "give one of them"),
        (["all", "in", "--out", "o", "--device", "cuda:9"], 2, "--device = 'cuda:9', but torch sees"),
        (["all", "in", "--out", "o", "--device", "gpu"], 2, "--device = 'gpu' is not one of"),
    ],
)
def test_wrong_words_cost_one_line_and_write_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], code: int, says: str
) -> None:
    before = sorted(Path().rglob("*"))
    found, _, error = predict(monkeypatch, capsys, *words)
    assert (found, error.count("\n")) == (code, 1)
    assert error.startswith("error: ")
    assert says in error
    assert sorted(Path().rglob("*")) == before


def test_an_empty_folder_may_be_filled(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Path("o").mkdir()
    assert predict(monkeypatch, capsys, "all", "in", "--out", "o")[0] == 0
