import numpy as np
import pytest
import torch

from strategies import STRATEGIES, Update
from strategies.testbed import Loss, Tensors, federate
from tests.strategies.quadratics import at, path, update


def test_one_local_step_reaches_the_global_optimum() -> None:
    assert path(STRATEGIES["fedavg"](), 300, 1)[-1] == pytest.approx(3.0, abs=1e-12)


def test_five_local_steps_drift_to_the_known_fixed_point() -> None:
    # x = mean_i(b_i + (1 - .1 a_i)^5 (x - b_i)), so x = 2 (1 - .7^5) / (1 - (.9^5 + .7^5) / 2)
    known = 2 * (1 - 0.7**5) / (1 - (0.9**5 + 0.7**5) / 2)
    assert known == pytest.approx(2.6805322851, abs=1e-10)
    assert path(STRATEGIES["fedavg"](), 300, 5)[-1] == pytest.approx(known, abs=1e-12)


def test_one_full_batch_step_is_one_centralised_step_on_the_pooled_data() -> None:
    rng = np.random.default_rng(0)
    samples = [torch.from_numpy(rng.normal(mean, 1.0, (size, 3))) for mean, size in ((0, 50), (2, 7), (-1, 20))]

    def mean_loss(data: torch.Tensor) -> Loss:
        def loss(x: Tensors) -> torch.Tensor:
            return (torch.cosh(x["w"] - data)).sum(1).mean()

        return loss

    x0 = {"w": torch.zeros(3, dtype=torch.float64)}
    sizes = [len(s) for s in samples]
    (federated,) = federate(STRATEGIES["fedavg"](), x0, [mean_loss(s) for s in samples], sizes, 1, 1, 0.1)
    (central,) = federate(STRATEGIES["fedavg"](), x0, [mean_loss(torch.cat(samples))], [sum(sizes)], 1, 1, 0.1)
    torch.testing.assert_close(federated["w"], central["w"], rtol=0, atol=1e-15)
    assert central["w"].abs().min() > 0.001


def test_weights_are_shares_of_the_examples_received() -> None:
    both = [update("a", 1.0, 30), update("b", 5.0, 10)]
    assert STRATEGIES["fedavg"]().aggregate(at(0.0), both)["w"][0] == 2.0
    assert STRATEGIES["fedavg"](weighting="uniform").aggregate(at(0.0), both)["w"][0] == 3.0


def test_a_site_that_drops_out_leaves_the_weights_of_the_others_whole() -> None:
    three = [update("a", 1.0, 30), update("b", 5.0, 10), update("c", 7.0, 20)]
    assert STRATEGIES["fedavg"]().aggregate(at(0.0), three[:1])["w"][0] == 1.0
    assert STRATEGIES["fedavg"]().aggregate(at(0.0), three[1:])["w"][0] == pytest.approx(19 / 3, abs=1e-15)


def test_tensors_of_no_dimension_stay_arrays() -> None:
    x = {"w": np.array(1.0), "n": np.array(3)}
    after = STRATEGIES["fedavg"]().aggregate(x, [Update("a", {"w": np.array(2.0), "n": np.array(5)}, 1)])
    assert all(isinstance(a, np.ndarray) and a.shape == () for a in after.values())


def test_an_unknown_weighting_is_an_error() -> None:
    with pytest.raises(ValueError, match="weighting = 'size' must be one of: examples, uniform"):
        STRATEGIES["fedavg"](weighting="size")
