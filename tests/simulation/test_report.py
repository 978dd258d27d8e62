import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from protocol.errors import RunError
from simulation.report import write_report
from tests.finished_run import finished_run

VOID = {"meta", "img", "source"}
EVIL = "<script>alert('x')</script>"


class Page(HTMLParser):
    """The elements, attributes and words of a page; its elements must close in order."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(path.read_text())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data + " "


def add_overlays(run: Path, **differences: Any) -> None:
    (run / "overlays").mkdir()
    index = []
    for number, kind in enumerate(["worst", "best"]):
        Image.new("RGB", (30, 33)).save(run / "overlays" / f"{number}.png")
        index.append(
            {"file": f"{number}.png", "site": "oslo", "case": f"c{number}", "dice": 0.5, "kind": kind} | differences
        )
    (run / "overlays" / "overlays.json").write_text(json.dumps(index))


def edit_result(run: Path, edit: Any) -> None:
    result = json.loads((run / "result.json").read_text())
    edit(result)
    (run / "result.json").write_text(json.dumps(result))


def test_the_page_says_what_the_result_says(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "busi", 6, train__lr=3e-4)
    add_overlays(run)
    path = write_report(run)
    page, result = Page(path), json.loads((run / "result.json").read_text())
    assert path == run / "report.html"
    assert (run / "curves.png").is_file()
    final = result["final"]
    verdict = (
        f"it reaches a Dice of {final['global_dice']:.3f}; shantou has the lowest, {final['worst_site_dice']:.3f}."
    )
    assert verdict in page.words
    assert f"Round {final['best_round']} of 6 was the best." in page.words
    for site in final["sites"].values():
        for key, form in {"dice": "{:.3f}", "iou": "{:.3f}", "hd95": "{:.1f}", "nsd": "{:.3f}"}.items():
            assert form.format(site[key]) in page.words
    assert "update refused: 2 of 412,033 values are not finite" in page.words
    assert re.search(r"train\.lr\s+0\.0003\s+0\.002", page.words)
    assert "train 71.2 s" in page.words
    assert re.search(r"Worst cases\s+oslo\s+c0\s+Best cases\s+oslo\s+c1", page.words)
    assert "fedurwkv simulate busi/settings.yaml --engine local --out busi-again" in page.words


def test_the_page_needs_no_other_file_no_script_and_no_network(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "busi", 6)
    add_overlays(run)
    page = Page(write_report(run))
    assert not {tag for tag, _ in page.elements} & {"script", "link", "iframe", "object", "base", "form"}
    for _, attributes in page.elements:
        assert not any(name.startswith("on") or name == "href" for name in attributes)
        for name in ("src", "srcset"):
            assert attributes.get(name, "data:") is not None
            assert str(attributes.get(name, "data:")).startswith("data:")
    style = (run / "report.html").read_text().split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    pictures = [attributes for tag, attributes in page.elements if tag == "img"]
    assert len(pictures) == 5
    assert all(attributes["alt"] for attributes in pictures)


def test_every_word_from_outside_is_escaped(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "<i>run", 4, data__root=EVIL)
    add_overlays(run, site=EVIL, case='"><script>')

    def poison(result: dict[str, Any]) -> None:
        result["rounds"][0]["failed"] = {EVIL: EVIL}
        result["sites"][0]["name"] = EVIL
        result["final"]["sites"][EVIL] = result["final"]["sites"].pop("cairo-1")
        result["device"] = result["strategy"] = result["engine"] = EVIL

    edit_result(run, poison)
    page = Page(write_report(run))
    assert "script" not in {tag for tag, _ in page.elements}
    assert page.words.count(EVIL) >= 8
    assert any(EVIL in str(attributes.get("alt")) for _, attributes in page.elements)


def test_a_password_in_an_address_is_not_shown(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "busi", 4, tracking__uri="https://me:secret@mlflow.example")
    html = write_report(run).read_text()
    assert "https://mlflow.example" in html
    assert "secret" not in html


def test_what_privacy_cost_stands_by_round_and_by_site(tmp_path: Path) -> None:
    plain = Page(write_report(finished_run(tmp_path / "plain", 3)))
    assert "epsilon spent" not in plain.words
    run = finished_run(tmp_path / "private", 3, privacy__epsilon=4.0)

    def private(result: dict[str, Any]) -> None:
        for number, record in enumerate(result["rounds"], 1):
            for site in record["sites"].values():
                site["epsilon"] = 1.1 * number
        result["rounds"][-1]["sites"]["shantou"]["epsilon"] = None  # it could not afford the last one
        result["rounds"][-1]["sites"]["oslo"]["epsilon"] = 3.4

    edit_result(run, private)
    page = Page(write_report(run))
    assert "epsilon 4 at delta 1e-05 is the most that the study may cost a patient" in page.words
    for site, spent in (("cairo-1", "3.300"), ("oslo", "3.400"), ("shantou", "2.200")):
        assert re.search(rf"{site}\s+{spent}", page.words)
    assert re.search(r"MB\s+1\.100.*MB\s+2\.200.*MB\s+3\.400", page.words, re.DOTALL)


def test_what_is_absent_is_said(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "study", 2)

    def deployed(result: dict[str, Any]) -> None:
        result["engine"] = "deployment"
        del result["final"]["sites"]["oslo"]  # it has no test images
        result["rounds"][0] |= {"global_dice": None, "worst_site_dice": None}

    edit_result(run, deployed)
    page = Page(write_report(run))
    assert "This run left no overlays" in page.words
    assert "every site that was asked gave a valid reply" in page.words
    assert "All settings are the defaults." in page.words
    assert "fedurwkv simulate" not in page.words
    assert re.search(r"oslo\s+220\s+47\s+63\s+–\s+–\s+–\s+–", page.words)


@pytest.mark.parametrize("name", ["result.json", "settings.yaml"])
def test_a_run_that_has_not_finished_has_no_report(tmp_path: Path, name: str) -> None:
    run = finished_run(tmp_path / "busi", 2)
    (run / name).unlink()
    with pytest.raises(RunError, match=f"holds no {re.escape(name)}: a report needs a run that has finished"):
        write_report(run)
    assert not (run / "report.html").exists()
