"""FedBN, SiloBN, FedRep: what a site keeps for itself neither leaves it nor comes back from the others."""

import numpy as np
import pytest
import torch

from strategies import STRATEGIES, Strategy, Update
from strategies.testbed import Loss, Site, Tensors
from tests.strategies.quadratics import LR


def model() -> dict[str, np.ndarray]:
    return {
        "conv.weight": np.zeros((1, 1)),
        "norm.weight": np.zeros(1),
        "norm.bias": np.full(1, 0.5),
        "norm.running_mean": np.zeros(1),
        "norm.running_var": np.ones(1),
        "norm.num_batches_tracked": np.array(0),
    }


def trained(site: str, value: float, examples: int = 1) -> Update:
    arrays = {name: np.full_like(a, value) for name, a in model().items()}
    return Update(site, arrays, examples)


def test_fedbn_averages_all_but_the_normalisation_layers() -> None:
    after = STRATEGIES["fedbn"]().aggregate(model(), [trained("a", 1.0, 30), trained("b", 5.0, 10)])
    assert after["conv.weight"] == 2.0
    for name, before in model().items():
        if name.startswith("norm."):
            assert after[name] == before
            assert after[name].dtype == before.dtype


def test_silobn_averages_the_weights_of_normalisation_layers_too() -> None:
    after = STRATEGIES["silobn"]().aggregate(model(), [trained("a", 1.0, 30), trained("b", 5.0, 10)])
    assert [after[name].item() for name in ("conv.weight", "norm.weight", "norm.bias")] == [2.0, 2.0, 2.0]
    for name in ("norm.running_mean", "norm.running_var", "norm.num_batches_tracked"):
        assert after[name] == model()[name]


def two_parts(conv: float, scale: float) -> Loss:
    def loss(x: Tensors) -> torch.Tensor:
        with torch.no_grad():
            x["norm.running_mean"] += 1.0
        return ((x["conv.weight"] - conv) ** 2 / 2).sum() + ((x["norm.weight"] - scale) ** 2 / 2).sum()

    return loss


def run(strategy: Strategy, rounds: int, lost: int = 0) -> tuple[dict[str, np.ndarray], list[Site]]:
    """Two sites with optima (0, 1) and (4, -3) of (conv, norm), one step a round; site 1 loses round `lost`."""
    sites = [Site(str(i), two_parts(*optima), 1, 1, LR) for i, optima in enumerate([(0.0, 1.0), (4.0, -3.0)])]
    x = model()
    for number in range(1, rounds + 1):
        replies = [site.answer(strategy, number, x, {}) for site in sites]
        for reply in replies:
            for name in strategy.kept(x):
                assert reply.arrays[name] == x[name]
        counted = [reply for reply in replies if not (number == lost and reply.site == "1")]
        x = strategy.aggregate(x, counted)
        for reply in counted:
            sites[int(reply.site)].accepted = number
    return x, sites


def test_fedbn_sites_go_on_from_their_own_layers() -> None:
    x, sites = run(STRATEGIES["fedbn"](), 20)
    assert x["conv.weight"].item() == pytest.approx(2 * (1 - 0.9**20), abs=1e-14)
    for site, optimum in zip(sites, (1.0, -3.0), strict=True):
        own = site.personal(STRATEGIES["fedbn"](), x)
        assert own["norm.weight"].item() == pytest.approx(optimum * (1 - 0.9**20), abs=1e-14)
        assert own["norm.bias"].item() == 0.5
        assert own["conv.weight"] is x["conv.weight"]
    assert x["norm.weight"].item() == 0.0


def test_silobn_sites_go_on_from_their_own_statistics() -> None:
    x, sites = run(STRATEGIES["silobn"](), 20)
    assert x["norm.weight"].item() == pytest.approx(-1 * (1 - 0.9**20), abs=1e-14)
    own = [site.personal(STRATEGIES["silobn"](), x)["norm.running_mean"].item() for site in sites]
    assert own[0] == own[1] >= 20
    assert x["norm.running_mean"].item() == 0.0
    assert sites[0].personal(STRATEGIES["silobn"](), x)["norm.weight"] is x["norm.weight"]


def test_a_lost_reply_leaves_the_sites_own_layers_where_they_were() -> None:
    x, sites = run(STRATEGIES["fedbn"](), 5, lost=3)
    own = [site.personal(STRATEGIES["fedbn"](), x)["norm.weight"].item() for site in sites]
    assert own == pytest.approx([1 - 0.9**5, -3 * (1 - 0.9**4)], abs=1e-14)


def body_and_head(target: float) -> Loss:
    def loss(x: Tensors) -> torch.Tensor:
        return ((x["body.weight"] + x["head.weight"] - target) ** 2 / 2).sum()

    return loss


def test_fedrep_fits_the_head_first_and_moves_the_body_once() -> None:
    # target 4, three steps: head .4, .76; then body 0 - .1 (.76 - 4) = .324; the other site's target is 0: it rests
    strategy = STRATEGIES["fedrep"]()
    sites = [Site("a", body_and_head(0.0), 1, 3, LR), Site("b", body_and_head(4.0), 1, 3, LR)]
    x = {"body.weight": np.zeros(1), "head.weight": np.zeros(1)}
    replies = [site.answer(strategy, 1, x, {}) for site in sites]
    assert [reply.arrays["head.weight"][0] for reply in replies] == [0.0, 0.0]
    x = strategy.aggregate(x, replies)
    assert x["body.weight"][0] == pytest.approx(0.162, abs=1e-15)
    assert x["head.weight"][0] == 0.0
    sites[1].accepted = 1
    assert sites[1].personal(strategy, x)["head.weight"][0] == pytest.approx(0.76, abs=1e-15)
    # round 2 at site b: body + head = .922: head .76 + .1 * 3.078 = 1.0678, + .1 * 2.7702 = 1.34482
    sites[1].answer(strategy, 2, x, {})
    assert sites[1].memory.at(2)["head.weight"][0] == pytest.approx(1.34482, abs=1e-12)


def test_fedrep_without_a_head_is_all_body() -> None:
    strategy = STRATEGIES["fedrep"]()
    site = Site("a", lambda x: ((x["w"] - 4.0) ** 2 / 2).sum(), 1, 3, LR)
    assert site.answer(strategy, 1, {"w": np.zeros(1)}, {}).arrays["w"][0] == pytest.approx(0.4, abs=1e-15)
