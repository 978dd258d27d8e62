"""`fedurwkv export`, as a user types it; what the file computes is tested beside `urwkv.export`."""

import sys
from pathlib import Path

import pytest

import fedurwkv
from tests.client.models import write_model
from urwkv.export import ExportError


def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["fedurwkv", "export", *words])
    with pytest.raises(SystemExit) as end:
        fedurwkv.main()
    said = capsys.readouterr()
    return int(end.value.code or 0), said.out, said.err


@pytest.mark.slow
def test_a_model_becomes_an_onnx_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    onnx = pytest.importorskip("onnx")
    model, target = write_model(tmp_path / "m", data_size="48"), tmp_path / "m.onnx"
    code, said, error = export(monkeypatch, capsys, str(model), "--onnx", str(target))
    assert (code, error) == (0, "")
    assert said.startswith(f"{target}: ONNX opset 18, 1.9 MB, logits within ")
    words = {prop.key: prop.value for prop in onnx.load(target).metadata_props}
    assert words["trained_side"] == "48"
    assert words["normalisation"] == "(pixel - 127.5) / 63.75, done inside"


def test_what_cannot_be_written_is_refused_at_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m")
    before = Path("m").read_bytes()
    for words, says in {
        ("m", "--onnx", "m"): "m exists already: choose another --onnx, or remove it",
        ("m", "--onnx", "no/m.onnx"): "no is no folder: make it first",
        ("nowhere", "--onnx", "m.onnx"): "no model file nowhere",
    }.items():
        code, _, error = export(monkeypatch, capsys, *words)
        assert (code, error.count("\n")) == (1, 1)
        assert says in error
    assert Path("m").read_bytes() == before


def test_why_the_export_failed_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> float:
        raise ExportError("writing ONNX needs onnx")

    monkeypatch.setattr("client.export.export_onnx", fail)
    code, _, error = export(monkeypatch, capsys, str(write_model(tmp_path / "m")), "--onnx", str(tmp_path / "o"))
    assert (code, error) == (1, "error: writing ONNX needs onnx\n")
