import numpy as np
import pytest

from strategies import STRATEGIES
from strategies.local import Journey
from strategies.site import LocalRound, Memory
from tests.strategies.quadratics import at


def state(value: float) -> dict[str, np.ndarray]:
    return at(value)


def test_a_proposal_counts_when_the_server_says_so() -> None:
    memory = Memory()
    assert memory.at(0) == {}
    memory.propose(1, 0, state(1.0))
    assert memory.at(1)["w"] == 1.0


def test_a_lost_reply_is_forgotten() -> None:
    memory = Memory()
    memory.propose(1, 0, state(1.0))
    memory.propose(2, 0, state(2.0))  # round 1 was lost: round 2 went on from the beginning
    assert sorted(memory.states) == [0, 2]
    memory.propose(3, 2, state(3.0))
    memory.propose(4, 2, state(4.0))
    assert memory.at(2)["w"] == 2.0
    assert sorted(memory.states) == [0, 2, 4]


def test_a_round_computed_again_replaces_its_proposal() -> None:
    memory = Memory()
    memory.propose(1, 0, state(1.0))
    memory.propose(2, 1, state(2.0))
    memory.propose(2, 1, state(2.5))
    assert memory.at(2)["w"] == 2.5
    assert memory.at(1)["w"] == 1.0


def test_a_study_can_go_back_by_one_round() -> None:
    memory = Memory()
    for number in range(1, 6):
        memory.propose(number, number - 1, state(number))
    assert sorted(memory.states) == [3, 4, 5]  # 5 proposed on 4; 3 is the round before
    memory.propose(4, 3, state(40.0))
    assert memory.at(4)["w"] == 40.0
    assert memory.at(3)["w"] == 3.0


def test_rounds_that_the_server_names_are_kept_as_long_as_it_names_them() -> None:
    memory = Memory()
    for number in range(1, 8):
        memory.propose(number, number - 1, state(number), keep=[2] if number < 7 else [])
        assert (2 in memory.states) == (2 <= number < 7)


def test_an_answer_that_comes_too_late_takes_nothing_from_a_later_one() -> None:
    memory = Memory()
    memory.propose(1, 0, state(1.0))
    memory.propose(3, 1, state(3.0))
    memory.propose(2, 1, state(2.0))  # round 2 was given up by the server, but not by the site
    assert memory.at(3)["w"] == 3.0
    memory.propose(4, 3, state(4.0), keep=[1])
    assert memory.at(1)["w"] == 1.0


def test_what_is_not_remembered_is_an_error_with_the_cure() -> None:
    with pytest.raises(ValueError, match=r"reply of round 7, but the site remembers rounds 0: put its state back"):
        Memory().at(7)
    local = ("scaffold", Memory(), 8, 7, at(0.0), {})
    with pytest.raises(ValueError, match="reply of round 7"):
        LocalRound(STRATEGIES[local[0]](), *local[1:])


def test_a_strategy_without_site_state_needs_no_memory() -> None:
    memory = Memory()
    local = LocalRound(STRATEGIES["fedprox"](), memory, 8, 7, at(0.0), {})
    local.close([Journey(at(1.0), (0.1,))], {})
    assert memory.states == {0: {}}


@pytest.mark.parametrize("name", [name for name, cls in STRATEGIES.items() if cls.remembers])
def test_what_is_remembered_is_a_copy(name: str) -> None:
    x = {"w": np.zeros((1, 1)), "head.weight": np.zeros((1, 1)), "n.running_var": np.ones(1)}
    y = {key: a + 1 for key, a in x.items()}
    strategy, memory = STRATEGIES[name](), Memory()
    local = LocalRound(strategy, memory, 1, 0, x, strategy.broadcast(x))
    local.close([Journey(y, (0.1,)) for _ in local.phases(2)], {})
    before = {key: a.copy() for key, a in memory.at(1).items()}
    assert before
    for a in (*x.values(), *y.values()):
        a += 100.0
    assert all((memory.at(1)[key] == a).all() for key, a in before.items())


def test_no_more_scalars_leave_than_the_strategy_reports() -> None:
    journey = Journey(at(1.0), (0.2, 0.1))
    losses = {"train.loss_before": 3.0, "val.loss": 2.0, "val.loss_after": 1.0}
    sent = {}
    for name, cls in STRATEGIES.items():
        local = LocalRound(cls(), Memory(), 1, 0, at(0.0), cls().broadcast(at(0.0)))
        journeys = [journey for _ in local.phases(2)]
        sent[name] = local.close(journeys, losses)[1]
    assert {name: scalars for name, scalars in sent.items() if scalars} == {
        "fednova": {"train.effective_steps": pytest.approx(1.5)},
        "scaffold": {"train.travel": pytest.approx(0.3)},
        "qfedavg": {"train.loss_before": 3.0, "train.rate": pytest.approx(0.15)},
        "feddg_ga": {"val.loss": 2.0, "val.loss_after": 1.0},
    }


def test_the_variate_is_the_mean_gradient_weighted_by_falling_rates() -> None:
    # gradients 5 and 8 at rates .2 and .1 move by 1.8; their mean is 1.8 / .3, and c_1 - c = 1 - 3 is added
    strategy, memory = STRATEGIES["scaffold"](), Memory({0: {}, 1: state(1.0)})
    local = LocalRound(strategy, memory, 2, 1, at(10.0), state(3.0))
    assert local.phases(2)[0].drift["w"][0] == 2.0
    local.close([Journey(at(8.2), (0.2, 0.1))], {})
    assert memory.at(2)["w"][0] == pytest.approx(1.0 - 3.0 + 6.0, abs=1e-14)
