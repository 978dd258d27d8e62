"""Paired statistics by hand, against scipy, and on studies whose truth is known."""

import itertools

import numpy as np
import pytest
from scipy.stats import wilcoxon

from simulation.compare.statistics import Key, differences, estimate, holm, interval, leaning, signed_rank
from simulation.compare.wording import FEW, HELD


def study(
    rng: np.random.Generator,
    seeds: int,
    sites: int,
    images: int,
    site_sd: float,
    seed_sd: float = 0.0,
    *,
    crossed: bool = True,
    truth: float = 0.0,
) -> dict[Key, float]:
    """Differences of a study: truth + seed + site + image, all normal, images of deviation 1."""
    values = {}
    of_site = {site: rng.normal(0, site_sd) for site in range(sites)}
    for seed in range(seeds):
        shift = rng.normal(0, seed_sd) if seed_sd else 0.0
        for site in range(sites):
            centre = of_site[site] if crossed else rng.normal(0, site_sd)
            for image, noise in enumerate(rng.normal(0, 1, images)):
                values[Key(seed, f"s{site}", f"{seed}-{image}")] = truth + shift + centre + noise
    return values


def coverage(studies: int, draws: int = 300, **how: object) -> float:
    """The share of simulated studies whose interval holds the truth."""
    held = 0
    for number in range(studies):
        values = study(np.random.default_rng(number), truth=1.0, **how)  # type: ignore[arg-type]
        found = interval(values, crossed=bool(how.get("crossed", True)), draws=draws)
        held += found.low <= 1.0 <= found.high
    return held / studies


def test_a_contestant_against_itself_differs_by_nothing() -> None:
    dice = {Key(0, "a", f"{n}"): 0.1 * n for n in range(9)}
    pair = differences(dice, dice)
    found = interval(pair, crossed=True)
    assert (found.estimate, found.low, found.high) == (0, 0, 0)
    assert signed_rank(pair, crossed=True) == 1.0


def test_the_sign_is_that_of_the_first() -> None:
    better = {Key(0, "a", f"{n}"): 0.5 + 0.01 * n for n in range(12)}
    worse = {key: value - 0.1 for key, value in better.items()}
    found = interval(differences(better, worse), crossed=True)
    assert found.estimate == pytest.approx(0.1)
    assert found.low == pytest.approx(0.1)  # constant: nothing to draw
    assert interval(differences(worse, better), crossed=True).high == pytest.approx(-0.1)


def test_only_the_same_images_can_be_paired() -> None:
    with pytest.raises(ValueError, match="the same images"):
        differences({Key(0, "a", "1"): 0.5}, {Key(0, "a", "2"): 0.5})


def test_the_estimate_pools_a_seeds_images_and_averages_seeds() -> None:
    values = {Key(0, "a", "1"): 1.0, Key(0, "b", "1"): 0.0, Key(0, "b", "2"): 0.2, Key(1, "a", "1"): 2.0}
    assert estimate(values) == pytest.approx((0.4 + 2.0) / 2)


def test_holm_by_hand() -> None:
    # sorted .01 .02 .03 .04 times 4 3 2 1 = .04 .06 .06 .04, and none below the one before
    assert holm([0.02, 0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.06, 0.04, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.03]) == [0.03]
    assert holm([]) == []


def test_signed_ranks_are_scipys() -> None:
    values = study(np.random.default_rng(0), 1, 3, 20, 0.5, truth=0.2)
    expected = wilcoxon(list(values.values()), zero_method="pratt").pvalue
    assert signed_rank(values, crossed=False) == expected


def test_signed_ranks_by_hand() -> None:
    # all five positive: two of 2^5 signs are as extreme
    assert signed_rank({Key(0, "a", f"{n}"): n + 1.0 for n in range(5)}, crossed=True) == pytest.approx(2 / 32)


def test_ranks_lean_by_hand() -> None:
    # of 0, 1, -2, -3, 9 the ranks are 1 to 5: 2 + 5 above zero, 3 + 4 below
    values = {Key(0, "a", f"{n}"): value for n, value in enumerate([0.0, 1.0, -2.0, -3.0, 9.0])}
    assert leaning(values, crossed=True) == 0
    assert leaning({key: value - 0.1 for key, value in values.items()}, crossed=True) == -1
    assert leaning({key: 0.1 - value for key, value in values.items()}, crossed=True) == 1
    # by the mean of two seeds the one image gains, by each seed's own 1 and -3, 9 and -2 neither side is ahead
    two = {Key(0, "a", "1"): 1.0, Key(1, "a", "1"): 9.0, Key(0, "a", "2"): -3.0, Key(1, "a", "2"): -2.0}
    assert (leaning(two, crossed=True), leaning(two, crossed=False)) == (1, 0)


def test_an_image_that_several_seeds_test_counts_once() -> None:
    values = {Key(seed, "a", f"{n}"): n + 1.0 + seed for seed in range(3) for n in range(5)}
    assert signed_rank(values, crossed=True) == pytest.approx(2 / 32)
    assert signed_rank(values, crossed=False) < 2 / 32


def test_one_site_and_one_seed_leave_the_plain_bootstrap_of_a_mean() -> None:
    rng = np.random.default_rng(1)
    values = {Key(0, "a", f"{n}"): float(v) for n, v in enumerate(rng.normal(0, 1, 400))}
    found = interval(values, crossed=False)
    error = np.std(list(values.values())) / 20
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_sites_that_differ_widen_the_interval() -> None:
    alike = study(np.random.default_rng(2), 1, 10, 30, 0.0)
    unlike = {key: value + (int(key.site[1:]) % 2) for key, value in alike.items()}
    widths = [interval(v, crossed=True).high - interval(v, crossed=True).low for v in (alike, unlike)]
    # sites of deviation 1/2 add .5 / sqrt(10) to the standard error
    expected = 2 * 1.96 * np.hypot(widths[0] / (2 * 1.96), 0.5 / np.sqrt(10))
    assert widths[1] == pytest.approx(expected, rel=0.08)


def test_the_same_images_in_every_seed_do_not_count_as_more_images() -> None:
    once = {Key(0, "a", f"{n}"): float(v) for n, v in enumerate(np.random.default_rng(3).normal(0, 1, 100))}
    thrice = {Key(seed, key.site, key.image): value for key, value in once.items() for seed in range(3)}
    one, three = (interval(values, crossed=True) for values in (once, thrice))
    assert three.high - three.low == pytest.approx(one.high - one.low, rel=0.05)
    nested = interval(thrice, crossed=False)
    assert nested.high - nested.low < 0.7 * (one.high - one.low)


@pytest.mark.parametrize("crossed", [True, False])
def test_intervals_of_many_sites_hold_the_truth(crossed: bool) -> None:
    held = coverage(200, seeds=1, sites=20, images=20, site_sd=0.5, crossed=crossed)
    assert 0.90 <= held <= 0.985


def test_seeds_are_a_level_of_their_own() -> None:
    held = coverage(200, seeds=12, sites=4, images=5, site_sd=0.0, seed_sd=0.5, crossed=False)
    assert 0.88 <= held <= 0.985


def test_intervals_of_few_sites_hold_it_as_seldom_as_the_page_says() -> None:
    held = coverage(400, seeds=1, sites=FEW, images=30, site_sd=1.0)
    assert 100 * held == pytest.approx(HELD, abs=4)


def test_the_same_input_gives_the_same_interval() -> None:
    values = study(np.random.default_rng(4), 2, 3, 7, 0.5)
    shuffled = dict(sorted(values.items(), key=lambda item: item[1]))
    assert interval(values, crossed=True) == interval(shuffled, crossed=True)


def test_sites_with_other_test_images_in_each_seed_are_crossed_too() -> None:
    values = study(np.random.default_rng(5), 2, 3, 7, 0.5)
    names = [{key.image for key in values if key.seed == seed} for seed in (0, 1)]
    assert not names[0] & names[1]
    found = interval(values, crossed=True)
    assert found.low < found.estimate < found.high


def test_every_sample_is_one_that_can_be_drawn() -> None:
    # two sites of one image each: the mean of a sample is one of three numbers
    found = interval({Key(0, "a", "1"): 0.0, Key(0, "b", "1"): 1.0}, crossed=False, level=0.4)
    assert {found.low, found.high} <= {0.0, 0.5, 1.0}
    assert found.estimate in {sum(pair) / 2 for pair in itertools.product([0.0, 1.0], repeat=2)}
