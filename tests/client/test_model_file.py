from pathlib import Path

import pytest
import torch

from client.model_file import open_model, trained_side
from protocol.errors import ModelError, SettingsError
from tests.client.models import write_model


def test_a_model_and_the_words_of_its_header(tmp_path: Path) -> None:
    model, words = open_model(write_model(tmp_path / "m.safetensors", bias=1.5, data_size="48"))
    assert not model.training
    assert torch.equal(model(torch.zeros(1, 3, 16, 16)), torch.full((1, 1, 16, 16), 1.5))
    assert words == {"data.size": "48"}
    assert trained_side(tmp_path, words, None) == 48
    assert trained_side(tmp_path, words, 64) == 64


@pytest.mark.parametrize("words", [{}, {"data.size": "large"}, {"data.size": "8"}])
def test_a_header_without_the_side(tmp_path: Path, words: dict[str, str]) -> None:
    with pytest.raises(ModelError, match=r"does not say the side .* give it by --size"):
        trained_side(tmp_path, words, None)
    assert trained_side(tmp_path, words, 64) == 64


def test_a_side_that_no_model_has(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="--size = 15 must be at least 16"):
        trained_side(tmp_path, {}, 15)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model file .*nowhere"):
        open_model(tmp_path / "nowhere")
    with pytest.raises(ModelError, match=f"{tmp_path.name} is a folder: name the file of a model$"):
        open_model(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(ModelError, match=r"name the file of a model, .*model\.safetensors"):
        open_model(tmp_path)
    with pytest.raises(ModelError, match="is torn"):
        open_model(tmp_path / "model.safetensors")
