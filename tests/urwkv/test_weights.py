import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from urwkv import URWKV, Architecture
from urwkv.weights import load_model, read_header, save_model

SMALL = Architecture("small", norm="batch", num_classes=2)
HEADER = {"version": 1, "architecture": asdict(SMALL), "extra": {}}


@pytest.fixture
def model():
    torch.manual_seed(0)
    return URWKV.from_architecture(SMALL).eval()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_round_trip(model, path):
    save_model(path, model, SMALL, {"round": "7"})
    random_state = torch.get_rng_state()
    again = load_model(path)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert read_header(path) == (SMALL, {"round": "7"})
    assert again.architecture == SMALL
    assert not again.training
    assert all(parameter.requires_grad for parameter in again.parameters())
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(again(images), model(images))


def test_a_state_in_another_layout_is_saved_as_well(model, path):
    state = model.to(memory_format=torch.channels_last).state_dict()
    save_model(str(path), state, SMALL)
    for name, tensor in load_model(str(path)).state_dict().items():
        assert torch.equal(tensor, state[name])


def test_a_write_that_fails_leaves_the_old_file_and_no_other(model, path, monkeypatch):
    save_model(path, model, SMALL, {"round": "1"})

    def broken(_):
        raise OSError("disk full")

    monkeypatch.setattr("os.fsync", broken)
    with pytest.raises(OSError, match="disk full"):
        save_model(path, model, SMALL, {"round": "2"})
    assert read_header(path)[1] == {"round": "1"}
    assert list(path.parent.iterdir()) == [path]


def test_a_missing_file_is_named(path):
    with pytest.raises(FileNotFoundError, match=str(path)):
        load_model(path)


@pytest.mark.parametrize("keep", [0, 4, 500, -100])
def test_a_torn_file(model, path, keep):
    save_model(path, model, SMALL)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=f"{path} is not a safetensors file, or is torn"):
        load_model(path)


def test_the_same_model_gives_the_same_bytes(model, path):
    save_model(path, model, SMALL, {"round": "7"})
    once = path.read_bytes()
    save_model(path, model, SMALL, {"round": "7"})
    assert path.read_bytes() == once


@pytest.mark.parametrize("metadata", [{}, {"format": "pt"}])
def test_a_file_of_another_program(model, path, metadata):
    save_file(model.state_dict(), path, metadata)
    with pytest.raises(ValueError, match="not a model written by FedURWKV"):
        load_model(path)


def with_header(path: Path, model: URWKV, changes: dict[str, object] | str) -> None:
    words = changes if isinstance(changes, str) else json.dumps(HEADER | changes)
    save_file(model.state_dict(), path, {"fedurwkv-model": words})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("{", "the header is not JSON"),
        ("3", "does not describe a network"),
        ({"version": 2}, "version 2, and this program reads version 1"),
        ({"architecture": None}, "does not describe a network"),
        ({"architecture": {"variant": "base"}}, r"names \['variant'\]"),
        ({"architecture": asdict(SMALL) | {"norm": "x"}}, "norm = 'x' is not one of"),
        ({"architecture": asdict(SMALL) | {"num_classes": "2"}}, "num_classes = '2' must be"),
    ],
)
def test_headers_that_are_not_ours(model, path, changes, message):
    with_header(path, model, changes)
    with pytest.raises(ValueError, match=message):
        load_model(path)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda state: state.pop("head.bias"), r"head.bias is absent, but float32 \(2,\)"),
        (lambda state: state.update(more=torch.zeros(1)), r"more is float32 \(1,\), but absent"),
        (lambda state: state.update({"head.bias": torch.zeros(3)}), r"head.bias is float32 \(3,\)"),
        (lambda state: state.update({"head.bias": torch.zeros(2).half()}), r"head.bias is float16 \(2,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(model, path, fault, message):
    state = model.state_dict()
    fault(state)
    save_model(path, state, SMALL)
    with pytest.raises(ValueError, match=message):
        load_model(path)
