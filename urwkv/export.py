"""U-RWKV as an ONNX file: standard operators, any batch, height and width, pixels in and logits out.

The file takes pixels as they are decoded, 0 to 255, and normalises them itself, so no user can get that wrong.
It is written only once ONNX Runtime has been seen to compute what the network does.
"""

import copy
import json
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from urwkv.deployed import Deployed, traceable
from urwkv.network import URWKV
from urwkv.weights import write_whole

OPSET = 18
TOLERANCE = 1e-4
"""How far logits may lie from torch's, times the largest of them where that is above 1: both round in float32."""

COLOURS = {1: "grey", 3: "RGB"}
NEEDED = ("onnx", "onnxruntime", "onnxscript")
CHECKED = ((1, 64, 64), (2, 45, 83), (3, 16, 16), (1, 1, 1), (1, 384, 512))
"""Batch, height and width of the pictures on which ONNX Runtime is compared; squares of the height where need be."""


class ExportError(RuntimeError):
    """The network cannot be written as ONNX; the message says why, and the cure."""


def export_onnx(model: URWKV, target: Path, *, mean: float, scale: float, facts: Mapping[str, str]) -> float:
    """Writes the network as ONNX, checked against torch at several sizes.

    Input `images`, float32 (batch, in_channels, height, width), RGB or grey, 0 to 255; output `logits`, float32
    (batch, num_classes, height, width). With shift "paper" height and width are one dimension, `side`.

    Args:
        model: the network, on the CPU; left as it is.
        target: the file to write; its folder must exist.
        mean, scale: the network was trained on (pixel - mean) / scale.
        facts: more words for the file's metadata, which always tells the architecture.

    Returns:
        The largest difference of a logit between ONNX Runtime and torch.

    Raises:
        ExportError: a library is missing, or ONNX Runtime computes something else; nothing is written.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ExportError(
            f"writing ONNX needs {' and '.join(missing)}: pip install '.[export]' in the source tree, or"
            f" pip install {' '.join(missing)}"
        )
    architecture = model.architecture
    square = architecture.shift == "paper"
    classes = "lesion where above 0" if architecture.num_classes == 1 else "the class of the largest, 0 is background"
    words = {
        "architecture": json.dumps(asdict(architecture)),
        "images": f"{COLOURS.get(architecture.in_channels, 'channels')}, 0 to 255",
        "normalisation": f"(pixel - {mean:g}) / {scale:g}, done inside",
        "logits": classes,
    }
    deployed = Deployed(copy.deepcopy(model), mean, scale).eval()
    content = _trace(traceable(deployed), architecture.in_channels, square, words | dict(facts))
    largest = _check(deployed, content, architecture.in_channels, square)
    write_whole(target, content)
    return largest


def _trace(network: nn.Module, channels: int, square: bool, words: Mapping[str, str]) -> bytes:
    """The ONNX file of the network, in standard operators."""
    import onnx

    dims = ["side", "side"] if square else ["height", "width"]
    axes = {name: torch.export.Dim(name) for name in ("batch", *dims)}
    shapes = {"images": {0: axes["batch"], 2: axes[dims[0]], 3: axes[dims[1]]}}
    height, width = (40, 40) if square else (40, 56)
    example = torch.zeros(2, channels, height, width)
    with torch.no_grad(), _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=shapes,
            verbose=False,
        )
    if program is None:
        raise ExportError("torch.onnx.export gave nothing back")
    proto = program.model_proto
    _strip(proto)
    for axis, name in zip((2, 3), dims, strict=True):  # cropped to what came in
        proto.graph.output[0].type.tensor_type.shape.dim[axis].dim_param = name
    proto.producer_name, proto.producer_version = "fedurwkv", ""
    proto.doc_string = "U-RWKV segmentation: pixels 0 to 255 in, logits out; see the metadata"
    onnx.helper.set_model_props(proto, dict(words))
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString())


def _strip(proto: Any) -> None:
    """Take out what tracing noted down, stack traces with the paths of this machine among it."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    graph.ClearField("value_info")


def _check(network: nn.Module, content: bytes, channels: int, square: bool) -> float:
    """The largest difference between ONNX Runtime and torch; ExportError when it is more than allowed."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for batch, height, width in CHECKED:
        size = (height, height) if square else (height, width)
        shapes = torch.rand(batch, channels, 8, 8, generator=generator)
        noise = torch.rand(batch, channels, *size, generator=generator)
        images = 200 * F.interpolate(shapes, size, mode="bilinear") + 55 * noise
        with torch.inference_mode():
            expected = network(images)
        found = torch.from_numpy(session.run(["logits"], {"images": images.numpy()})[0])
        if found.shape != expected.shape:
            raise ExportError(f"ONNX Runtime gives {tuple(found.shape)} for images {tuple(images.shape)}")
        off, allowed = float((found - expected).abs().max()), TOLERANCE * max(1.0, float(expected.abs().max()))
        if not off <= allowed:
            raise ExportError(
                f"logits of ONNX Runtime are off by {off:.1e} for images {tuple(images.shape)}, more than"
                f" {allowed:.1e}: nothing was written; use the model with fedurwkv predict"
            )
        largest = max(largest, off)
    return largest


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what torch's exporter says of libraries not needed, of its own old words, and of two equal sides."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*", category=FutureWarning)
            warnings.filterwarnings("ignore", message=".*shares the same shape constraints", category=UserWarning)
            yield
    finally:
        logger.setLevel(level)
