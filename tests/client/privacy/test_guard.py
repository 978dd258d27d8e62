"""Crafted models are refused, honest ones never."""

from typing import Any

import numpy as np
import pytest
import torch

from client.privacy.guard import alike_units, check_finite, check_model, dead_units
from protocol.errors import PolicyError
from urwkv import URWKV

Model = dict[str, np.ndarray]
LAYER = "up.0.steps.1.weight"  # a convolution of the decoder


def fresh(seed: int = 0, **words: Any) -> Model:
    torch.manual_seed(seed)
    model = URWKV(**{"variant": "small", "norm": "group"} | words)
    return {name: tensor.numpy().copy() for name, tensor in model.state_dict().items()}


def trained(model: Model, size: float = 0.5, seed: int = 1) -> Model:
    """Every tensor moved at random by `size` of its norm, or of the norm that zeros count with."""
    rng = np.random.default_rng(seed)
    moved = {}
    for name, tensor in model.items():
        step = rng.standard_normal(tensor.shape)
        step *= size * max(np.linalg.norm(tensor), 0.1 * tensor.size**0.5 * (tensor.ndim < 2)) / np.linalg.norm(step)
        moved[name] = (tensor + step).astype(tensor.dtype)
    return moved


@pytest.mark.parametrize("variant", ["small", "base"])
def test_fresh_and_trained_models_pass(variant: str) -> None:
    model = fresh(variant=variant)
    check_model(model, model)
    check_model(fresh(seed=3, variant=variant), model)
    check_model(trained(model), model)


def test_batch_statistics_and_counters_pass() -> None:
    model = fresh(norm="batch")
    counted = {name: tensor + 7 if "num_batches" in name else tensor for name, tensor in model.items()}
    check_model(counted, model)


@pytest.mark.parametrize("value", [np.inf, np.nan])
def test_what_comes_beside_a_model_is_finite(value: float) -> None:
    check_finite({"c": np.zeros(3, np.float32), "n": np.ones(2, np.int64)})
    with pytest.raises(PolicyError, match="c holds values that are not finite"):
        check_finite({"c": np.array([0, value], np.float32)})


def test_another_network_is_refused() -> None:
    model = fresh()
    less = {name: tensor for name, tensor in model.items() if name != LAYER}
    for x, before, said in (
        (less, model, "is missing"),
        (model, less, "is not of this network"),
        (model | {LAYER: model[LAYER][:1]}, model, r"is float32 \(1, "),
        (model | {LAYER: model[LAYER].astype(np.float64)}, model, "is float64"),
    ):
        with pytest.raises(PolicyError, match=rf"{LAYER} {said}"):
            check_model(x, before)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    model = fresh()
    x = trained(model)
    x[LAYER].flat[3] = bad
    with pytest.raises(PolicyError, match=f"{LAYER} holds values that are not finite"):
        check_model(x, model)


def test_weights_that_jump_are_refused() -> None:
    model = fresh()
    check_model(model | {LAYER: model[LAYER] * 10.9}, model)
    with pytest.raises(PolicyError, match=rf"{LAYER} moved by 11 times its norm"):
        check_model(model | {LAYER: model[LAYER] * 12}, model)
    bias = "stem.1.bias"  # all 0 in a fresh network
    check_model(model | {bias: model[bias] + 0.9}, model)
    with pytest.raises(PolicyError, match=rf"{bias} moved by 11 times"):
        check_model(model | {bias: model[bias] + 1.1}, model)


def test_a_layer_whose_units_measure_the_same_is_refused() -> None:
    # Robbing the Fed: all rows the same functional, told apart by their biases
    model = fresh()
    x = trained(model)
    x[LAYER][1:] = x[LAYER][:1] * np.linspace(0.5, 2, len(x[LAYER]) - 1, dtype=np.float32).reshape(-1, 1, 1, 1)
    with pytest.raises(PolicyError, match=rf"{LAYER} has 64 of 64 units alike, 0 when"):
        check_model(x, model)


def test_a_layer_that_is_switched_off_is_refused() -> None:
    model = fresh()
    x = trained(model)
    x[LAYER][8:] *= 1e-12
    with pytest.raises(PolicyError, match=rf"{LAYER} has \d+ of 64 units switched off, 0 when"):
        check_model(x, model)
    x[LAYER][:] = 0
    with pytest.raises(PolicyError, match=rf"{LAYER} has 64 of 64 units switched off"):
        check_model(x, model)
    few = trained(model)
    few[LAYER][:6] = 0
    check_model(few, model)
    check_model(x, x)


def test_units_are_counted_by_hand() -> None:
    weight = np.array([[1.0, 2.0], [2.0, 4.0], [-1.0, -2.0], [0.0, 0.0], [5.0, 1.0], [1e-9, 0.0]])
    assert alike_units(weight) == 3
    assert dead_units(weight) == 2
    assert dead_units(np.zeros((4, 3))) == 4
    assert alike_units(np.ones((4, 1))) == 0
