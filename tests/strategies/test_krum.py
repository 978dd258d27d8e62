import numpy as np
import pytest

from strategies import STRATEGIES, Update
from tests.strategies.quadratics import at, updates

# n = 5, f = 1: the two nearest count. Scores: 0: 1 + 9, 1: 1 + 4, 3: 4 + 2.25, 4.5: 2.25 + 12.25, 100: huge
VALUES = (0.0, 1.0, 3.0, 4.5, 100.0)


def test_krum_by_hand() -> None:
    strategy = STRATEGIES["krum"]()
    assert strategy.aggregate(at(0.0), updates(*VALUES))["w"][0] == 1.0
    assert strategy.scores(at(0.0), updates(*VALUES))[:4].tolist() == [10.0, 5.0, 6.25, 14.5]


def test_multikrum_averages_all_but_the_f_worst() -> None:
    assert STRATEGIES["multikrum"]().aggregate(at(0.0), updates(*VALUES))["w"][0] == 2.125


def test_two_byzantine_sites_by_hand() -> None:
    # n = 7, f = 2: the three nearest count. 0: 1 + 4 + 9 = 14, 1: 1 + 1 + 4 = 6, 2: 1 + 1 + 4 = 6, 3: 1 + 4 + 9 = 14
    # 10: 49 + 64 + 81; the first of equals is the answer
    sites = updates(0.0, 1.0, 2.0, 3.0, 10.0, 1e6, -1e6)
    assert STRATEGIES["krum"](byzantine=2).aggregate(at(0.0), sites)["w"][0] == 1.0
    assert STRATEGIES["multikrum"](byzantine=2).aggregate(at(0.0), sites)["w"][0] == pytest.approx(16 / 5)


def test_distances_are_over_all_tensors() -> None:
    x = {"u": np.zeros(1), "w": np.zeros(1)}
    points = [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 9.0), (9.0, 1.0)]
    sites = [Update(str(i), {"u": np.array([u]), "w": np.array([w])}, 1) for i, (u, w) in enumerate(points)]
    assert STRATEGIES["krum"]().scores(x, sites).tolist() == [2.0, 3.0, 3.0, 65.0 + 81.0, 65.0 + 81.0]


def test_small_updates_of_large_models_are_told_apart() -> None:
    # |y|^2 is 1e11, so inner products are blind to these distances of 1e-4 even in float64
    tiny = 2.0**-13
    x = {"w": np.full(100_000, 1000.0, np.float32)}
    sites = []
    for site, value in zip("edcba", VALUES, strict=True):
        y = x["w"].copy()
        y[0] += np.float32(value * 2 * tiny)
        sites.append(Update(site, {"w": y}, 1))
    assert STRATEGIES["krum"]().aggregate(x, sites)["w"][0] == np.float32(1000.0 + 2 * tiny)


def test_buffers_come_from_the_chosen() -> None:
    x = {"w": np.zeros(1), "n.running_mean": np.zeros(1), "n.running_var": np.ones(1), "n.count": np.array(0)}
    sites = [
        Update(
            str(value),
            {
                "w": np.array([value]),
                "n.running_mean": np.array([value]),
                "n.running_var": np.array([2.0]),
                "n.count": np.array(int(value)),
            },
            1,
        )
        for value in VALUES
    ]
    one = STRATEGIES["krum"]().aggregate(x, sites)
    assert (one["n.running_mean"][0], one["n.running_var"][0], one["n.count"]) == (1.0, 2.0, 1)
    four = STRATEGIES["multikrum"]().aggregate(x, sites)
    assert four["n.running_mean"][0] == 2.125
    assert four["n.running_var"][0] == pytest.approx(2.0 + np.var(VALUES[:4]), abs=1e-14)
    assert four["n.count"] == 4


@pytest.mark.parametrize("byzantine", [-1, 1.5, True])
def test_f_must_be_a_whole_number(byzantine: float) -> None:
    with pytest.raises(ValueError, match=f"byzantine = {byzantine} must be a whole number at least 0"):
        STRATEGIES["krum"](byzantine=byzantine)
