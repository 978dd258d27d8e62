import numpy as np
import pytest
from torch import nn

from strategies.layers import head, normalisation_layers, statistics
from urwkv import URWKV


def shapes(*entries: tuple[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    return {name: np.zeros(shape) for name, shape in entries}


@pytest.mark.parametrize("norm", ["batch", "group"])
def test_the_rule_finds_just_the_normalisation_layers_of_the_network(norm: str) -> None:
    model = URWKV(variant="small", norm=norm)
    x = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    kinds = (nn.BatchNorm2d, nn.GroupNorm, nn.LayerNorm)
    modules = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    expected = {f"{name}.{leaf}" for name, module in modules.items() for leaf in module.state_dict()}
    assert normalisation_layers(x) == expected
    assert len(modules) > 30
    assert head(x) == {"head.weight", "head.bias"}
    buffers = {name for name, _ in model.named_buffers()}
    assert statistics(x) == buffers
    assert bool(buffers) == (norm == "batch")


@pytest.mark.parametrize(
    ("x", "found"),
    [
        (shapes(("conv.weight", (4, 3, 1, 1)), ("conv.bias", (4,))), set()),
        (shapes(("a.0.weight", (4,)), ("a.0.bias", (4,))), {"a.0.weight", "a.0.bias"}),
        (shapes(("bn1.weight", (4,)), ("prelu.weight", (4,))), {"bn1.weight"}),  # a scale alone is no norm
        (shapes(("rms_norm.weight", (4,))), {"rms_norm.weight"}),
        (shapes(("norm_head.weight", (4, 4)), ("norm_head.bias", (4,))), set()),  # a linear layer, whatever its name
        (shapes(("b.running_mean", (4,)), ("b.running_var", (4,))), {"b.running_mean", "b.running_var"}),
        (shapes(("w", (1,)), ("bias", (1,))), set()),
    ],
)
def test_layers_by_name_and_shape(x: dict[str, np.ndarray], found: set[str]) -> None:
    assert normalisation_layers(x) == found


def test_the_head_is_what_lies_under_a_module_of_that_name() -> None:
    x = shapes(("head", (1,)), ("net.head.0.weight", (1, 1)), ("header.weight", (1, 1)), ("heads.q", (1,)))
    assert head(x) == {"head", "net.head.0.weight"}
