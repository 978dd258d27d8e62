"""The file of a trained model, opened for a user: what is wrong with it is an error with a cure."""

from collections.abc import Mapping
from pathlib import Path

from protocol.errors import ModelError, SettingsError
from urwkv import URWKV
from urwkv.weights import load_model, read_header

SIDE = "data.size"
"""The word in a model's header for the side of the squares that it was trained on."""

SMALLEST = 16


def open_model(path: Path) -> tuple[URWKV, dict[str, str]]:
    """The network of a `model.safetensors`, on the CPU in evaluation mode, and the words of its header.

    Raises:
        ModelError: there is no such file, or it is not one of ours, torn, or of another version.
    """
    if path.is_dir():
        inside = path / "model.safetensors"
        raise ModelError(f"{path} is a folder: name the file of a model" + (f", {inside}" if inside.exists() else ""))
    try:
        return load_model(path), read_header(path)[1]
    except (FileNotFoundError, ValueError) as error:
        raise ModelError(str(error)) from error


def trained_side(path: Path, words: Mapping[str, str], size: int | None) -> int:
    """The side in pixels to which pictures are resized: `size` where the user gave it, else what the header says.

    Raises:
        SettingsError: `size` is too small.
        ModelError: neither says it.
    """
    if size is not None:
        if size < SMALLEST:
            raise SettingsError(f"--size = {size} must be at least {SMALLEST} pixels")
        return size
    word = words.get(SIDE, "")
    if not word.isdecimal() or int(word) < SMALLEST:
        raise ModelError(f"{path} does not say the side of the pictures it was trained on: give it by --size")
    return int(word)
