"""`fedurwkv export`: a trained model as an ONNX file that runs without this program."""

from pathlib import Path

from rich.console import Console

from client.data import MEAN, SCALE
from client.model_file import SIDE, open_model
from protocol.errors import ModelError
from urwkv.export import OPSET, ExportError, export_onnx


def export(source: Path, target: Path, console: Console) -> None:
    """Write the model `source` as ONNX to `target`, once ONNX Runtime gave what torch gives.

    Raises:
        ModelError: the model cannot be read, a library is missing, `target` is taken, or the results differ.
    """
    if target.exists():
        raise ModelError(f"{target} exists already: choose another --onnx, or remove it")
    if not target.parent.is_dir():
        raise ModelError(f"{target.parent} is no folder: make it first, or choose another --onnx")
    model, words = open_model(source)
    facts = {"trained_side": words[SIDE]} if SIDE in words else {}
    with console.status("tracing the network, and checking it in ONNX Runtime"):
        try:
            largest = export_onnx(model, target, mean=MEAN, scale=SCALE, facts=facts)
        except ExportError as error:
            raise ModelError(str(error)) from error
    size = target.stat().st_size / 1e6
    said = f"{target}: ONNX opset {OPSET}, {size:.1f} MB, logits within {largest:.0e} of torch's"
    console.print(said, highlight=False, markup=False, soft_wrap=True)
