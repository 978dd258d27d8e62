import pytest

from strategies import STRATEGIES
from tests.strategies.quadratics import at, path, updates


def test_a_round_visits_site_after_site() -> None:
    # x <- .9^5 x at site 1, then 4 + .7^5 (x - 4) at site 2
    models = path(STRATEGIES["cyclic"](), 300, 5, x=2.0)
    assert models[0] == pytest.approx(4 + 0.7**5 * (2 * 0.9**5 - 4), abs=1e-14)
    assert models[-1] == pytest.approx(4 * (1 - 0.7**5) / (1 - 0.63**5), abs=1e-12)


def test_turns_go_by_name() -> None:
    assert STRATEGIES["cyclic"]().turns(["c", "a", "b"]) == [["a"], ["b"], ["c"]]


@pytest.mark.parametrize("how", ["silent", "lost"])
def test_a_site_that_is_missing_is_passed_over(how: str) -> None:
    models = path(STRATEGIES["cyclic"](), 1, 5, x=2.0, **{how: {(1, 1)}})
    assert models[0] == pytest.approx(2 * 0.9**5, abs=1e-14)


def test_two_models_in_one_turn_are_an_error() -> None:
    with pytest.raises(ValueError, match="takes the model of one site a turn, not of a, b"):
        STRATEGIES["cyclic"]().aggregate(at(0.0), updates(1.0, 2.0))
