import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import at, path, update


def test_q_1_by_hand() -> None:
    # x = 1, K = 1: F = (.5, 13.5), L (x - y) = gradients (1, -9), L = 10
    # sum F g = .5 - 121.5 = -121;  sum (g^2 + L F) = 1 + 5 + 81 + 135 = 222
    assert path(STRATEGIES["qfedavg"](q=1.0), 1, 1, x=1.0)[0] == pytest.approx(1 + 121 / 222, abs=1e-14)


def test_q_2_by_hand() -> None:
    # sum F^2 g = .25 - 1640.25 = -1640;  sum (2 F g^2 + L F^2) = 1 + 2.5 + 2187 + 1822.5 = 4013
    assert path(STRATEGIES["qfedavg"](q=2.0), 1, 1, x=1.0)[0] == pytest.approx(1 + 1640 / 4013, abs=1e-14)


def test_a_root_of_the_loss_by_hand() -> None:
    # q = .5, F = (4, 9), L = 2, x - y = (1, -2), so L (x - y) = (2, -4)
    # sum F^q L (x - y) = 2 * 2 - 3 * 4 = -8
    # sum (q F^(q-1) |.|^2 + L F^q) = (.25 * 4 + 4) + (.5 / 3 * 16 + 6) = 5 + 26/3
    sites = [
        update("a", 9.0, train__loss_before=4.0, train__rate=0.5),
        update("b", 12.0, 50, train__loss_before=9.0, train__rate=0.5),
    ]
    assert STRATEGIES["qfedavg"](q=0.5).aggregate(at(10.0), sites)["w"][0] == pytest.approx(10 + 24 / 41, abs=1e-14)


def test_q_0_is_fedavg_with_uniform_weights() -> None:
    plain = path(STRATEGIES["fedavg"](weighting="uniform"), 20, 5, examples=(9, 1))
    assert path(STRATEGIES["qfedavg"](q=0.0), 20, 5, examples=(9, 1)) == pytest.approx(plain, abs=1e-13)


def test_the_length_of_an_update_is_over_all_its_tensors() -> None:
    # one site, q = 1, L = 1, F = 1: step = D / (|D|^2 + 1) with |D|^2 = 9 + 16
    site = update("a", (3.0, 4.0), train__loss_before=1.0, train__rate=1.0)
    assert STRATEGIES["qfedavg"](q=1.0).aggregate(at(0.0, 0.0), [site])["w"] == pytest.approx([3 / 26, 4 / 26])


def test_a_site_without_loss_counts_for_nothing() -> None:
    # x = 0: F = (0, 24), gradient of site 2 is -12: 24 * 12 / (144 + 240)
    assert path(STRATEGIES["qfedavg"](q=1.0), 1, 1)[0] == pytest.approx(0.75, abs=1e-15)
    for loss in (0.0, 5e-324):
        content = update("a", 1.0, train__loss_before=loss, train__rate=0.1)
        assert STRATEGIES["qfedavg"](q=0.01).aggregate(at(2.0), [content])["w"][0] == 2.0


def test_more_q_favours_the_site_with_the_higher_loss() -> None:
    # Site 1's optimum is 0 and its curvature 1, site 2's 4 and 3: site 2 loses more at FedAvg's 3 as of 1.5 to 4.5,
    # so evenness asks for less: |x| = sqrt(3) |x - 4|, x = 4 sqrt(3) / (1 + sqrt(3)) = 2.536
    mild, strong = (path(STRATEGIES["qfedavg"](q=q), 3000, 1)[-1] for q in (0.1, 5.0))
    assert 2.536 < strong < mild < 3.0


@pytest.mark.parametrize(
    ("scalars", "words"),
    [
        ({"train__rate": 0.1}, r"site a: the update comes without train\.loss_before"),
        ({"train__loss_before": -1.0, "train__rate": 0.1}, r"train\.loss_before = -1\.0 must be .* at least 0"),
        ({"train__loss_before": 1.0, "train__rate": 0.0}, r"train\.rate = 0\.0 must be a finite number above 0"),
    ],
)
def test_scalars_that_cannot_be_right_are_errors(scalars: dict[str, float], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        STRATEGIES["qfedavg"]().aggregate(at(0.0), [update("a", 1.0, **scalars)])
