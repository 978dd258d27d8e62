"""A model on disk: tensors in safetensors with a JSON header of how to rebuild the network. No pickle."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from urwkv.network import URWKV, Architecture

FORMAT = "fedurwkv-model"
VERSION = 1


def save_model(
    path: Path | str,
    model: nn.Module | Mapping[str, Tensor],
    architecture: Architecture,
    extra: Mapping[str, str] | None = None,
) -> None:
    """Writes a model, atomically: a reader sees the old file or the new one, also after a power cut.

    Args:
        path: the file; its folder must exist.
        model: the network, or its state by name.
        architecture: what the network was built from.
        extra: more words for the header, such as the round and its Dice.
    """
    state = model.state_dict() if isinstance(model, nn.Module) else model
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}
    header = {"version": VERSION, "architecture": asdict(architecture), "extra": dict(extra or {})}
    write_whole(Path(path), save(tensors, {FORMAT: json.dumps(header)}))  # one key: safetensors shuffles several


def load_model(path: Path | str) -> URWKV:
    """Rebuilds the network that a file holds, on the CPU and in evaluation mode. Draws no random numbers.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of ours, is of another version, torn, or its tensors do not fit.
    """
    architecture, _ = read_header(path)
    with torch.device("meta"):
        model = URWKV.from_architecture(architecture)
    expected = model.state_dict()
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    for name in sorted(expected.keys() | state.keys()):
        found, wanted = _kind(state.get(name)), _kind(expected.get(name))
        if found != wanted:
            raise ValueError(
                f"{path}: tensor {name} is {found}, but {wanted} in the network that the header describes:"
                " the file was edited or damaged; save the model again"
            )
    model.load_state_dict(state, assign=True)
    return model.eval()


def read_header(path: Path | str) -> tuple[Architecture, dict[str, str]]:
    """How to rebuild the network of a file, and the words that `save_model` was given as `extra`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not one of ours, is of another version, or torn.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(f"{path} is not a safetensors file, or is torn: {error}") from error
    if FORMAT not in metadata:
        raise ValueError(f"{path} is a safetensors file, but not a model written by FedURWKV")
    try:
        header = json.loads(metadata[FORMAT])
    except ValueError as error:
        raise ValueError(f"{path}: the header is not JSON: {error}") from error
    if not isinstance(header, dict) or "version" not in header:
        raise ValueError(f"{path}: the header does not describe a network: it names no version")
    if header["version"] != VERSION:
        raise ValueError(
            f"{path} is a model file of version {header['version']}, and this program reads"
            f" version {VERSION}: use the program that wrote it"
        )
    names = {field.name for field in fields(Architecture)}
    try:
        words, extra = header["architecture"], header["extra"]
        if set(words) != names:
            raise ValueError(f"it names {sorted(words)}, an architecture has {sorted(names)}")
        return Architecture(**words), extra
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: the header does not describe a network: {error}") from error


def _kind(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else f"{str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}"


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old one or the new one, also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
