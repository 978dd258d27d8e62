import itertools
import tracemalloc

import numpy as np
import pytest

from strategies import STRATEGIES, Update
from strategies.mean import weighted_mean


def random_update(site: str, rng: np.random.Generator, scale: float = 1.0) -> Update:
    w = (rng.standard_normal(1000) * scale).astype(np.float32)
    return Update(site, {"w": w}, int(rng.integers(1, 500)))


def test_the_result_does_not_depend_on_the_order_of_arrival_to_the_last_bit() -> None:
    rng = np.random.default_rng(0)
    updates = [random_update(f"s{i}", rng, 10.0 ** (3 * i - 6)) for i in range(5)]
    x = {"w": np.zeros(1000, np.float32)}
    results = {STRATEGIES["fedavg"]().aggregate(x, order)["w"].tobytes() for order in itertools.permutations(updates)}
    assert len(results) == 1


def test_statistics_are_pooled_as_if_the_images_lay_together() -> None:
    rng = np.random.default_rng(1)
    samples = [rng.normal(mean, std, size) for mean, std, size in ((0, 1, 50), (30, 2, 150), (-4, 0.5, 10))]
    updates = [
        Update(str(i), {"n.running_mean": np.array([s.mean()]), "n.running_var": np.array([s.var()])}, len(s))
        for i, s in enumerate(samples)
    ]
    x = {"n.running_mean": np.array([100.0]), "n.running_var": np.array([1.0])}
    pooled = np.concatenate(samples)
    mean = weighted_mean(x, updates, "examples")
    assert mean["n.running_mean"][0] == pytest.approx(pooled.mean(), rel=1e-12)
    assert mean["n.running_var"][0] == pytest.approx(pooled.var(), rel=1e-12)


def test_counters_take_their_maximum_in_their_own_dtype() -> None:
    x = {"n.num_batches_tracked": np.array(0)}
    updates = [Update(str(n), {"n.num_batches_tracked": np.array(n)}, 1) for n in (3, 9, 4)]
    after = STRATEGIES["fedavg"]().aggregate(x, updates)["n.num_batches_tracked"]
    assert isinstance(after, np.ndarray)  # arithmetic on arrays of no dimension gives numpy's scalars
    assert (after, after.shape, after.dtype) == (9, (), np.int64)


def test_neither_the_model_nor_the_updates_are_changed() -> None:
    rng = np.random.default_rng(2)
    x = {"w": np.ones(1000, np.float32)}
    updates = [random_update("a", rng), random_update("b", rng)]
    before = [u.arrays["w"].copy() for u in updates]
    STRATEGIES["fedavg"]().aggregate(x, iter(updates))
    assert (x["w"] == 1).all()
    assert all((u.arrays["w"] == old).all() for u, old in zip(updates, before, strict=True))


def test_memory_does_not_grow_with_the_number_of_updates() -> None:
    x = {"w": np.zeros(200_000, np.float32)}

    def peak(count: int) -> int:
        stream = (Update(str(i), {"w": np.full(200_000, i, np.float32)}, 1) for i in range(count))
        tracemalloc.start()
        STRATEGIES["fedavg"]().aggregate(x, stream)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(32) < 1.1 * peak(4)


@pytest.mark.parametrize(
    ("update", "words"),
    [
        (Update("a", {"w": np.zeros(3)}, 0), "site a: 0 examples"),
        (Update("a", {"w": np.zeros(2)}, 1), r"site a: w has shape \(2,\), not \(3,\)"),
        (Update("a", {"v": np.zeros(3)}, 1), "site a: tensors differ from the global model's: v, w"),
    ],
)
def test_an_update_that_does_not_fit_is_named(update: Update, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        STRATEGIES["fedavg"]().aggregate({"w": np.zeros(3)}, [update])


def test_no_updates_are_an_error() -> None:
    with pytest.raises(ValueError, match="no updates"):
        STRATEGIES["fedavg"]().aggregate({"w": np.zeros(3)}, [])
