import numpy as np
import pytest
import torch

from client.data import Images
from client.device import PlaceSettings, find_place
from client.network import Network
from client.training import Leg, Span, Trained, TrainSettings, learning_rate, legs, train
from protocol.settings import section
from strategies.local import Arrays, Phase
from tests.client.phantoms import small
from urwkv import Architecture

SETTINGS = TrainSettings(2, 4, 0.1, "sgd", 0.0, "constant", augment=False)
SPAN = Span(1, 2, 0, "site")


@pytest.fixture(scope="module")
def network() -> Network:
    torch.manual_seed(0)
    place = find_place(section(small(), "train", PlaceSettings))
    return Network(Architecture("small", norm="batch"), place)


@pytest.fixture(scope="module")
def x(network: Network) -> Arrays:
    return network.schema.unpack(network.read())


@pytest.fixture(scope="module")
def images() -> Images:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (8, 32, 32, 3), np.uint8)
    return Images(pixels, (pixels[..., 0] > 128).astype(np.uint8), tuple("abcdefgh"))


def run(network: Network, images: Images, x: Arrays, *phases: Phase, settings: TrainSettings = SETTINGS) -> Trained:
    network.hold(x)
    return train(network, images, settings, phases, x, SPAN, lambda: False)


def moved(start: Arrays, end: Arrays) -> set[str]:
    return {name for name, a in start.items() if (a != end[name]).any()}


def test_phases_of_one_model_share_its_epochs() -> None:
    x: Arrays = {}
    head, body, own, shared = Phase(3, start=x), Phase(1), Phase(2, start=x), Phase(2, start=x)
    assert legs([head, body]) == [Leg(head, 0, 4), Leg(body, 3, 4)]
    assert legs([own, shared]) == [Leg(own, 0, 2), Leg(shared, 0, 2)]
    assert legs([body, body]) == [Leg(body, 0, 2), Leg(body, 1, 2)]


def test_only_what_a_phase_names_moves_but_statistics_follow_the_images(
    network: Network, images: Images, x: Arrays
) -> None:
    (journey,) = run(network, images, x, Phase(1, only=frozenset(["head.weight"]))).journeys
    parameters = {name for name in moved(x, journey.end) if name in network.weights}
    assert parameters == {"head.weight"}
    assert "stem.1.running_mean" in moved(x, journey.end)
    assert all(weight.requires_grad for weight in network.weights.values())


def test_a_phase_that_names_nothing_does_nothing(network: Network, images: Images, x: Arrays) -> None:
    trained = run(network, images, x, Phase(1, only=frozenset()))
    assert moved(x, trained.journeys[0].end) == set()
    assert trained.journeys[0].rates == ()


def test_a_phase_goes_on_from_the_one_before_or_from_its_start(network: Network, images: Images, x: Arrays) -> None:
    head = frozenset(["head.weight", "head.bias"])
    first, second = run(
        network, images, x, Phase(1, only=head), Phase(1, only=network.weights.keys() - head)
    ).journeys
    assert (second.end["head.weight"] == first.end["head.weight"]).all()
    own, shared = run(network, images, x, Phase(2, start=first.end), Phase(2, start=x)).journeys
    alone = run(network, images, x, Phase(2, start=x)).journeys[0]
    assert moved(shared.end, alone.end) == set()
    assert moved(own.end, alone.end) != set()


def test_two_phases_of_one_epoch_are_one_of_two_for_plain_sgd(network: Network, images: Images, x: Arrays) -> None:
    falling = TrainSettings(2, 4, 0.1, "sgd", 0.0, "cosine", augment=True)
    parts = run(network, images, x, Phase(1), Phase(1), settings=falling)
    whole = run(network, images, x, Phase(2), settings=falling)
    assert moved(parts.journeys[1].end, whole.journeys[0].end) == set()
    assert parts.journeys[0].rates + parts.journeys[1].rates == whole.journeys[0].rates
    expected = [learning_rate(falling, step / 4 / 2) for step in range(4)]  # two epochs of two steps; round 1 of 2
    assert whole.journeys[0].rates == pytest.approx(expected, rel=1e-15)
    assert whole.steps == parts.steps == 4


def test_a_journey_tells_what_the_optimizer_really_does(network: Network, images: Images, x: Arrays) -> None:
    """One direction throughout: with drift d alone, x - y = d sum of rates, since this SGD has no momentum."""
    drift = {"head.bias": np.array([1e6], np.float32)}  # beside it the gradient is nothing
    trained = run(network, images, x, Phase(2, drift=drift, only=frozenset(["head.bias"])))
    (journey,) = trained.journeys
    assert journey.momentum == 0.0
    gone = float(x["head.bias"][0]) - float(journey.end["head.bias"][0])
    assert gone == pytest.approx(journey.scalars()["train.effective_steps"] * 0.1 * 1e6, rel=1e-5)
    assert journey.scalars()["train.effective_steps"] == pytest.approx(4.0)


def test_a_pull_holds_the_model_near_x(network: Network, images: Images, x: Arrays) -> None:
    free = run(network, images, x, Phase(2)).journeys[0].end
    held = run(network, images, x, Phase(2, pull=5.0)).journeys[0].end
    lengths = [sum(float(((y[n] - x[n]) ** 2).sum()) for n in network.weights) for y in (free, held)]
    assert lengths[1] < 0.5 * lengths[0]


def test_a_journeys_end_stays_when_the_network_moves_on(network: Network, images: Images, x: Arrays) -> None:
    first, second = run(network, images, x, Phase(1), Phase(1)).journeys
    assert moved(first.end, second.end) != set()
    assert moved(first.end, run(network, images, x, Phase(1), Phase(1)).journeys[0].end) == set()
