"""What holds for every strategy, or for every one of a kind."""

import copy
import importlib
import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from strategies import STRATEGIES, Strategy, Update
from tests.strategies.quadratics import at, path, update, updates

DEFAULTS = {
    "fedavg": {"weighting": "examples"},
    "fedavgm": {"server_lr": 1.0, "momentum": 0.9, "weighting": "examples"},
    "fedadam": {"server_lr": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3, "weighting": "examples"},
    "fedyogi": {"server_lr": 0.01, "beta1": 0.9, "beta2": 0.99, "tau": 1e-3, "weighting": "examples"},
    "fedadagrad": {"server_lr": 0.01, "beta1": 0.9, "tau": 1e-3, "weighting": "examples"},
    "fedprox": {"mu": 0.01, "weighting": "examples"},
    "fednova": {"weighting": "examples"},
    "scaffold": {"server_lr": 1.0},
    "feddyn": {"alpha": 0.1},
    "fedbn": {"weighting": "examples"},
    "silobn": {"weighting": "examples"},
    "ditto": {"lam": 0.1, "weighting": "examples"},
    "fedrep": {"weighting": "examples"},
    "qfedavg": {"q": 0.1},
    "feddg_ga": {"step": 0.2},
    "median": {},
    "trimmed_mean": {"trim": 0.2},
    "krum": {"byzantine": 1},
    "multikrum": {"byzantine": 1},
    "geometric_median": {"nu": 1e-6, "weighting": "examples"},
    "norm_bounding": {"max_norm": None, "weighting": "examples"},
    "cyclic": {},
}

SIDE_BY_SIDE = [name for name in STRATEGIES if name != "cyclic"]
SCALARS = {
    "train.travel": 0.5,
    "train.rate": 0.1,
    "train.effective_steps": 5.0,
    "train.loss_before": 1.5,
    "val.loss": 1.0,
    "val.loss_after": 0.5,
}


def model(size: int = 37) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    return {
        "conv.weight": rng.standard_normal((size, 2)).astype(np.float32),
        "conv.bias": rng.standard_normal(size).astype(np.float32),
        "norm.weight": np.ones(size, np.float32),
        "norm.bias": np.zeros(size, np.float32),
        "norm.running_mean": rng.standard_normal(size).astype(np.float32),
        "norm.running_var": rng.uniform(0.5, 2, size).astype(np.float32),
        "norm.num_batches_tracked": np.array(40),
        "head.weight": rng.standard_normal((1, size)).astype(np.float32),
    }


def some(count: int, seed: int) -> list[Update]:
    """Updates of very unlike sizes, so that a sum in another order would round otherwise."""
    rng = np.random.default_rng(seed)
    made = []
    for index in range(count):
        scale = 10.0 ** (index - 3)
        arrays = {name: (a + scale * rng.standard_normal(a.shape)).astype(a.dtype) for name, a in model().items()}
        arrays["norm.running_var"] = rng.uniform(0.1, 9, 37).astype(np.float32)
        arrays["norm.num_batches_tracked"] = np.array(40 + index)
        scalars = {name: value * (1 + rng.uniform()) for name, value in SCALARS.items()}
        made.append(Update(f"site-{index}", arrays, int(rng.integers(1, 500)), scalars))
    return made


def test_names_and_defaults_are_those_of_the_catalogue() -> None:
    assert {name: cls.hyperparameters() for name, cls in STRATEGIES.items()} == DEFAULTS


@pytest.mark.parametrize("name", STRATEGIES)
def test_hyperparameters_are_keywords_and_no_others_are_taken(name: str) -> None:
    with pytest.raises(TypeError):
        STRATEGIES[name](0.5)
    with pytest.raises(TypeError):
        STRATEGIES[name](lr=0.5)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_page_names_its_paper_and_both_halves(name: str) -> None:
    text = importlib.import_module(STRATEGIES[name].__module__).__doc__ or ""
    assert "https://" in text
    assert "site:" in text or name == "cyclic"
    assert "server:" in text


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_arrival_order_does_not_matter_to_the_last_bit(name: str) -> None:
    results = set()
    for order in ([0, 1, 2, 3, 4, 5, 6], [6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4], [5, 6, 0, 3, 4, 1, 2]):
        strategy, x = STRATEGIES[name](), model()
        for number in range(3):
            sites = some(7, number)
            x = strategy.aggregate(x, iter([sites[i] for i in order]))
        results.add(b"".join(x[key].tobytes() for key in sorted(x)))
    assert len(results) == 1


@pytest.mark.parametrize("name", STRATEGIES)
def test_neither_the_model_nor_the_updates_are_changed(name: str) -> None:
    x, sites = model(), some(1 if name == "cyclic" else 7, 0)
    x_before, before = copy.deepcopy(x), copy.deepcopy(sites)
    strategy = STRATEGIES[name]()
    strategy.aggregate(x, sites)
    strategy.aggregate(x, sites)
    assert all((x[key] == x_before[key]).all() for key in x)
    for site, old in zip(sites, before, strict=True):
        assert all((site.arrays[key] == old.arrays[key]).all() for key in x)


@pytest.mark.parametrize("name", STRATEGIES)
def test_the_result_has_the_names_shapes_and_dtypes_of_the_model(name: str) -> None:
    x = model()
    after = STRATEGIES[name]().aggregate(x, some(1 if name == "cyclic" else 7, 0))
    assert list(after) == list(x)
    for key, a in after.items():
        assert isinstance(a, np.ndarray)
        assert (a.shape, a.dtype) == (x[key].shape, x[key].dtype)


@pytest.mark.parametrize("name", [n for n in SIDE_BY_SIDE if n not in ("krum", "multikrum", "fedbn", "silobn")])
def test_statistics_are_pooled_and_counters_take_the_largest(name: str) -> None:
    rng = np.random.default_rng(1)
    x = {"w": np.zeros(1), "n.running_mean": np.array([100.0]), "n.running_var": np.ones(1), "n.count": np.array(0)}
    samples = [rng.normal(mean, std, 60) for mean, std in ((0, 1), (30, 2), (-4, 0.5), (1, 9), (2, 3))]
    sites = []
    for index, sample in enumerate(samples):
        arrays = {"n.running_mean": sample.mean(keepdims=True), "n.running_var": sample.var(keepdims=True)}
        arrays |= {"w": np.array([float(index)]), "n.count": np.array([3, 9, 4, 5, 8][index])}
        sites.append(Update(str(index), arrays, 60, SCALARS))
    after = STRATEGIES[name]().aggregate(x, sites)
    pooled = np.concatenate(samples)
    assert after["n.running_mean"][0] == pytest.approx(pooled.mean(), rel=1e-12)
    assert after["n.running_var"][0] == pytest.approx(pooled.var(), rel=1e-12)
    assert after["n.count"] == 9


@pytest.mark.parametrize(
    "name", [n for n in SIDE_BY_SIDE if n not in ("fedadam", "fedyogi", "fedadagrad", "qfedavg")]
)
def test_sites_that_agree_are_taken_at_their_word(name: str) -> None:
    # FedDyn adds what the mean has moved once more: mean - h / a = 2 mean - x
    x = STRATEGIES[name]().aggregate(at(1.0, 2.0), [update(s, (3.0, -4.0), **_keywords()) for s in "abcde"])
    assert x["w"] == pytest.approx([5.0, -10.0] if name == "feddyn" else [3.0, -4.0], abs=1e-12)


def _keywords() -> dict[str, float]:
    return {name.replace(".", "__"): value for name, value in SCALARS.items()}


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_no_updates_are_an_error(name: str) -> None:
    with pytest.raises(ValueError, match="no updates"):
        STRATEGIES[name]().aggregate(at(0.0), [])


@pytest.mark.parametrize(
    ("name", "settings", "fewest"),
    [
        ("median", {}, 3),
        ("trimmed_mean", {}, 3),
        ("trimmed_mean", {"trim": 0.0}, 3),
        ("krum", {}, 5),
        ("krum", {"byzantine": 0}, 3),
        ("krum", {"byzantine": 2}, 7),
        ("multikrum", {}, 5),
        ("multikrum", {"byzantine": 3}, 9),
        ("geometric_median", {}, 3),
        ("norm_bounding", {}, 3),
    ],
)
def test_robust_rules_refuse_too_few_sites(name: str, settings: dict[str, float], fewest: int) -> None:
    strategy = STRATEGIES[name](**settings)
    assert strategy.fewest == fewest
    values = [float(i) for i in range(fewest)]
    strategy.aggregate(at(0.0), updates(*values))
    with pytest.raises(
        ValueError, match=f"needs the updates of at least {fewest} sites, not of {fewest - 1}: ask more"
    ):
        strategy.aggregate(at(0.0), updates(*values[1:]))


def test_a_given_bound_needs_no_company() -> None:
    assert STRATEGIES["norm_bounding"](max_norm=1.0).fewest == 1


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_an_update_that_does_not_fit_is_named(name: str) -> None:
    sites = [update(s, 1.0, **_keywords()) for s in "abcd"]
    with pytest.raises(ValueError, match=r"site e: w has shape \(2,\), not \(1,\)"):
        STRATEGIES[name]().aggregate(at(0.0), [*sites, update("e", (1.0, 2.0), **_keywords())])


STREAMING = [name for name, cls in STRATEGIES.items() if not cls.needs_all and name != "cyclic"]


def test_means_are_the_strategies_that_need_no_company() -> None:
    assert set(SIDE_BY_SIDE) - set(STREAMING) == {
        "feddg_ga",
        "median",
        "trimmed_mean",
        "krum",
        "multikrum",
        "geometric_median",
        "norm_bounding",
    }


@pytest.mark.parametrize("name", STREAMING)
def test_memory_does_not_grow_with_the_number_of_updates(name: str) -> None:
    x = {"w": np.zeros((400, 500), np.float32)}

    def stream(count: int) -> Iterator[Update]:
        for index in range(count):
            yield Update(str(index), {"w": np.full((400, 500), index, np.float32)}, 1, SCALARS)

    def peak(count: int) -> int:
        strategy = STRATEGIES[name]()
        tracemalloc.start()
        strategy.aggregate(x, stream(count))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    assert peak(24) < 1.1 * peak(4)


@pytest.mark.parametrize("name", [n for n, cls in STRATEGIES.items() if cls.remembers])
def test_a_lost_reply_moves_no_sites_state(name: str) -> None:
    missing = {(2, 0), (3, 1), (4, 0), (9, 1)}
    silent, lost = (path(STRATEGIES[name](), 12, 3, **{how: missing}) for how in ("silent", "lost"))
    assert lost == silent


@pytest.mark.parametrize("name", SIDE_BY_SIDE)
def test_server_state_survives_being_put_away(name: str) -> None:
    def run(put_away: bool) -> bytes:
        strategy, x = STRATEGIES[name](), model()
        for number in range(4):
            x = strategy.aggregate(x, some(7, number))
            if put_away:
                state = {key: np.asarray(value, order="C") for key, value in strategy.state.items()}
                strategy = STRATEGIES[name]()
                strategy.state = state
        return b"".join(x[key].tobytes() for key in sorted(x))

    assert run(put_away=True) == run(put_away=False)


def test_what_travels_down_has_the_shape_of_the_model_from_the_first_round_on() -> None:
    def layout(strategy: Strategy) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
        return {name: (a.shape, a.dtype) for name, a in strategy.broadcast(model()).items()}

    for name in SIDE_BY_SIDE:
        strategy = STRATEGIES[name]()
        before = layout(strategy)
        strategy.aggregate(model(), some(7, 0))
        assert layout(strategy) == before
        assert bool(before) == (name == "scaffold")
