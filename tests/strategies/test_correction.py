import numpy as np
import pytest
import torch

from strategies.correction import Correction
from strategies.local import Phase


def two_weights(device: str = "cpu") -> dict[str, torch.Tensor]:
    return {
        "u": torch.tensor([1.0, 2.0], device=device, requires_grad=True),
        "w": torch.tensor([[3.0]], device=device, requires_grad=True),
    }


X = {"u": np.array([0.0, 4.0], np.float32), "w": np.array([[2.0]], np.float32)}


def corrected(phase: Phase, gradient: float | None = 10.0) -> list[list[float]]:
    weights = two_weights()
    if gradient is not None:
        for weight in weights.values():
            weight.grad = torch.full_like(weight, gradient)
    correction = Correction(weights)
    correction.set(phase, X)
    correction.apply()
    return [[] if w.grad is None else w.grad.flatten().tolist() for w in weights.values()]


def test_a_pull_points_away_from_x() -> None:
    assert corrected(Phase(1, pull=0.5)) == [[10.5, 9.0], [10.5]]


def test_a_drift_is_added_as_it_is() -> None:
    assert corrected(Phase(1, drift={"w": np.array([[7.0]])})) == [[10.0, 10.0], [17.0]]


def test_both_add_up() -> None:
    drift = {"u": np.array([1.0, 1.0]), "w": np.array([[2.0]])}
    assert corrected(Phase(1, pull=1.0, drift=drift)) == [[12.0, 9.0], [13.0]]


def test_only_what_moves_is_corrected() -> None:
    phase = Phase(1, pull=1.0, drift={"u": np.array([1.0, 1.0])}, only=frozenset({"w"}))
    assert corrected(phase) == [[10.0, 10.0], [11.0]]


def test_a_tensor_without_a_gradient_has_gradient_zero() -> None:
    assert corrected(Phase(1, drift={"w": np.array([[7.0]])}), gradient=None) == [[], [7.0]]
    assert corrected(Phase(1, pull=1.0), gradient=None) == [[1.0, -2.0], [1.0]]


def test_nothing_to_correct_touches_nothing() -> None:
    assert corrected(Phase(1), gradient=None) == [[], []]


def test_buffers_stay_where_they_are_from_phase_to_phase() -> None:
    weights = two_weights()
    correction = Correction(weights)
    correction.set(Phase(1, pull=1.0, drift=X), X)
    before = [tensor.data_ptr() for tensor in (*correction._anchors.values(), *correction._drifts.values())]
    correction.set(Phase(1, pull=1.0, drift=X), {name: torch.zeros(a.shape) for name, a in X.items()})
    after = [tensor.data_ptr() for tensor in (*correction._anchors.values(), *correction._drifts.values())]
    assert before == after
    assert len(before) == 4
    assert not any(anchor.any() for anchor in correction._anchors.values())


@pytest.mark.gpu
def test_a_captured_step_follows_the_phases() -> None:
    """Two phases through one captured graph end where eager steps do."""

    def loss(weights: dict[str, torch.Tensor]) -> torch.Tensor:
        return (weights["u"] ** 2).sum() + (weights["w"] ** 4).sum()

    phases = [Phase(1, pull=0.5, drift={k: np.full_like(a, d) for k, a in X.items()}) for d in (1.0, -3.0)]
    models = {}
    for captured in (False, True):
        weights = two_weights("cuda")
        correction = Correction(weights)
        correction.set(phases[0], X)
        optimizer = torch.optim.SGD(weights.values(), lr=0.01)

        def step(w: dict = weights, c: Correction = correction, o: torch.optim.SGD = optimizer) -> None:
            for weight in w.values():
                weight.grad = torch.zeros_like(weight)
            loss(w).backward()
            c.apply()
            o.step()

        run = step
        if captured:
            side = torch.cuda.Stream()
            start = {name: w.detach().clone() for name, w in weights.items()}
            with torch.cuda.stream(side):
                step()
            torch.cuda.current_stream().wait_stream(side)
            with torch.no_grad():
                for name, weight in weights.items():
                    weight.copy_(start[name])
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                step()
            run = graph.replay
        for phase in phases:
            correction.set(phase, X)
            for _ in range(5):
                run()
        torch.cuda.synchronize()
        models[captured] = [w.detach().cpu() for w in weights.values()]
    for eager, replayed in zip(models[False], models[True], strict=True):
        torch.testing.assert_close(replayed, eager, rtol=0, atol=1e-6)
