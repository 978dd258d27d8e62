import pytest
import torch

from strategies import STRATEGIES
from strategies.testbed import Tensors, federate
from tests.strategies.quadratics import LOSSES, LR, path


def test_it_gives_the_global_model_after_each_round() -> None:
    x0 = {"w": torch.zeros(1)}
    models = federate(STRATEGIES["fedavg"](), x0, LOSSES, [1, 1], 4, 1, LR)
    assert [model["w"].item() for model in models] == pytest.approx([0.6, 1.08, 1.464, 1.7712])
    assert models[0]["w"].dtype == torch.float32
    assert x0["w"].item() == 0.0


def test_local_steps_may_differ_from_site_to_site() -> None:
    # site 2 takes 2 steps to 4 (1 - .7^2) = 2.04
    assert path(STRATEGIES["fedavg"](), 1, (5, 2)) == pytest.approx([1.02])


def test_a_silent_site_is_left_out_of_the_mean() -> None:
    assert path(STRATEGIES["fedavg"](), 2, 1, silent={(1, 0)}) == pytest.approx([1.2, (1.08 + 2.04) / 2])


def test_models_may_have_several_tensors_buffers_and_counters() -> None:
    def loss(x: Tensors) -> torch.Tensor:
        with torch.no_grad():
            x["n.count"] += 1
            x["n.running_mean"] += 0.5
        return (x["a"] - 1).square().sum() + (x["b"] + x["a"].sum()).square().sum() * 0

    x0 = {
        "a": torch.zeros(2, 2),
        "b": torch.tensor(7.0),
        "n.running_mean": torch.zeros(1),
        "n.count": torch.tensor(0),
    }
    (model,) = federate(STRATEGIES["fedavg"](), x0, [loss, loss], [1, 1], 1, 3, 0.5)
    assert model["a"].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert model["b"].item() == 7.0
    assert model["n.count"].item() >= 3
    assert model["n.running_mean"].item() >= 1.5


def test_tensors_that_a_loss_does_not_use_are_still_corrected() -> None:
    # site 2 alone uses w, so site 1 has gradient 0 and SCAFFOLD moves it by c: both reach site 2's optimum
    def blind(x: Tensors) -> torch.Tensor:
        return (x["v"] ** 2).sum()

    x0 = {"w": torch.zeros(1, dtype=torch.float64), "v": torch.ones(1, dtype=torch.float64)}
    model = federate(STRATEGIES["scaffold"](), x0, [blind, LOSSES[1]], [1, 1], 300, 5, LR)[-1]
    assert model["w"].item() == pytest.approx(4.0, abs=1e-9)
    assert model["v"].item() == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("steps", "lr", "words"),
    [
        ((5, 0), LR, "local_steps = 0 must be a whole number at least 1"),
        (-1, LR, "local_steps = -1 must be a whole number at least 1"),
        ((5,), LR, "2 losses, 2 examples and 1 local_steps: one a site"),
        (5, 0.0, "lr = 0.0 must be a number above 0"),
    ],
)
def test_training_that_does_not_move_is_an_error(steps: int | tuple[int, ...], lr: float, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        federate(STRATEGIES["scaffold"](), {"w": torch.zeros(1)}, LOSSES, [1, 1], 1, steps, lr)


def test_a_round_without_replies_is_an_error() -> None:
    with pytest.raises(ValueError, match="no updates"):
        path(STRATEGIES["fedavg"](), 1, 1, silent={(1, 0), (1, 1)})


@pytest.mark.parametrize(("examples", "local_steps"), [([1], 1), ([1, 1], [1, 1, 1])])
def test_one_number_a_site(examples: list[int], local_steps: int | list[int]) -> None:
    with pytest.raises(ValueError, match="one a site"):
        federate(STRATEGIES["fedavg"](), {"w": torch.zeros(1)}, LOSSES, examples, 1, local_steps, LR)
