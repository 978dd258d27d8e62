"""Small models on disk for tests of what is done with them."""

from pathlib import Path

import torch

from urwkv import URWKV, Architecture
from urwkv.weights import save_model

SMALL = Architecture("small", norm="group")


def write_model(path: Path, architecture: Architecture = SMALL, bias: float | None = None, **words: str) -> Path:
    """A model file with random weights; with `bias`, its logits are that everywhere (of the last class)."""
    torch.manual_seed(0)
    model = URWKV.from_architecture(architecture)
    if bias is not None:
        model.head.weight.data.zero_()
        model.head.bias.data.zero_()
        model.head.bias.data[-1] = bias
    save_model(path, model, architecture, {key.replace("_", "."): word for key, word in words.items()})
    return path
