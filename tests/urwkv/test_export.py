import json

import pytest
import torch

from tests.urwkv.test_deployed import model_of
from urwkv.export import ExportError, export_onnx
from urwkv.ops.plain import FLOAT32_REACH

SCALING = {"mean": 127.5, "scale": 63.75}


def test_a_missing_library_is_named_with_the_cure(tmp_path, monkeypatch):
    monkeypatch.setattr("urwkv.export.find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ExportError, match=r"writing ONNX needs onnxscript: pip install '\.\[export\]'"):
        export_onnx(model_of(variant="small"), tmp_path / "model.onnx", **SCALING, facts={})


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """A model with group normalisation, its file, and the largest difference that the export found."""
    pytest.importorskip("onnxscript")
    model, path = model_of(variant="small", norm="group"), tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, path, export_onnx(model, path, **SCALING, facts={"trained_side": "64"})


def run(path, pixels):
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return torch.from_numpy(session.run(None, {"images": pixels.numpy()})[0])


def assert_same(path, model, size):
    pixels = torch.rand(size[0], model.architecture.in_channels, *size[1:]) * 255
    with torch.no_grad():
        expected = model((pixels - 127.5) / 63.75)
    off = (run(path, pixels) - expected).abs().max()
    assert off <= 1e-4 * max(1, expected.abs().max())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(1, 1, 1), (1, 16, 16), (5, 33, 70), (2, 128, 80), (1, 257, 300), (1, 600, 600)])
def test_any_batch_height_and_width_give_what_torch_gives(grouped, size):
    model, path, largest = grouped
    assert 0 < largest < 1e-4
    assert_same(path, model, size)


@pytest.mark.slow
def test_the_file_is_standard_and_says_what_it_is(grouped):
    import onnx

    _, path, _ = grouped
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert {node.domain for node in proto.graph.node} == {""}
    assert [(opset.domain, opset.version >= 17) for opset in proto.opset_import] == [("", True)]
    assert not proto.functions
    sides = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*proto.graph.input, *proto.graph.output)
    }
    assert sides == {"images": ["batch", 3, "height", "width"], "logits": ["batch", 1, "height", "width"]}
    words = {prop.key: prop.value for prop in proto.metadata_props}
    assert json.loads(words["architecture"])["variant"] == "small"
    assert words["normalisation"] == "(pixel - 127.5) / 63.75, done inside"
    assert words["images"] == "RGB, 0 to 255"
    assert words["logits"] == "lesion where above 0"
    assert words["trained_side"] == "64"
    assert b".py" not in path.read_bytes()  # no stack traces


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        {"variant": "small", "sase": "simple", "shift": "paper"},
        {"dual": "aligned", "shift": "none", "in_channels": 1, "num_classes": 3},
    ],
    ids=lambda words: "-".join(map(str, words.values())),
)
def test_other_architectures(tmp_path, words):
    pytest.importorskip("onnxscript")
    model, path = model_of(**words), tmp_path / "model.onnx"
    square = words["shift"] == "paper"
    if square:
        with torch.no_grad():
            model.darm.spatial.decay.weight[0] = 2 * FLOAT32_REACH  # sums in float64
    export_onnx(model, path, **SCALING, facts={})
    for size in [(1, 1, 1), (3, 50, 50), (1, 200, 200)]:
        assert_same(path, model, size)
    if square:
        import onnx

        shape = onnx.load(path).graph.input[0].type.tensor_type.shape
        assert [dim.dim_param for dim in shape.dim] == ["batch", "", "side", "side"]
    else:
        assert_same(path, model, (2, 31, 64))


@pytest.mark.slow
def test_a_file_that_computes_something_else_is_not_written(tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    monkeypatch.setattr("urwkv.deployed.biwkv_plain", lambda w, u, k, v, dtype: v)
    with pytest.raises(ExportError, match=r"logits of ONNX Runtime are off by .* nothing was written"):
        export_onnx(model_of(variant="small", norm="batch"), tmp_path / "model.onnx", **SCALING, facts={})
    assert not list(tmp_path.iterdir())
