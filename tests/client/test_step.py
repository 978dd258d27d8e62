"""The training step: as written it is plain torch, and replayed it is the same, whatever phase or round comes."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from client.data import Images, batches, normalise
from client.device import Compile, Place, PlaceSettings, find_place
from client.network import Network, network_at
from client.objective import Objective
from client.repeated import WARM, Repeated, Result, recorder_at
from client.step import Steps
from client.training import Span, TrainSettings, train
from protocol.errors import SettingsError
from protocol.seeds import seed_of
from strategies.local import Arrays, Phase
from urwkv import Architecture
from urwkv.blocks import Norm
from urwkv.losses import segmentation_loss

CPU = Place(torch.device("cpu"), bf16=False, compile="off")
HEAD = frozenset(["head.weight", "head.bias"])


def settings(optimizer: str = "adamw", schedule: str = "constant", lr: float = 2.0**-9) -> TrainSettings:
    """A rate that float32 holds exactly, as the tensor of a replayed step does."""
    return TrainSettings(2, 4, lr, optimizer, 2.0**-10, schedule, augment=False)


class Rerun:
    """Stands for a recorder where there is no GPU: a replay does the work again on what lies in its places."""

    device = torch.device("cpu")

    def __init__(self, after: int = 2) -> None:
        self.after, self.recorded = after, 0

    def do(self, work: Callable[[], Result]) -> Result:
        return work()

    def record(self, work: Callable[[], Result]) -> Callable[[], Result]:
        self.recorded += 1
        return work


@pytest.fixture(scope="module", params=["batch", "group"])
def network(request: pytest.FixtureRequest) -> Network:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return Network(Architecture("small", norm=request.param), CPU)


@pytest.fixture
def replayed(network: Network) -> Iterator[Rerun]:
    """The network with steps that are recorded after the second of a form."""
    written, recorder = network.steps, Rerun()
    network.steps = Steps(network.model, network.weights, network.correction, network.place, recorder)
    yield recorder
    network.steps = written


@pytest.fixture(scope="module")
def images() -> Images:
    """Two batches of 4 and one of 2."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (10, 16, 16, 3), np.uint8)
    return Images(pixels, (pixels[..., 0] > 128).astype(np.uint8), tuple("abcdefghij"))


@pytest.fixture(scope="module")
def x(network: Network) -> Arrays:
    return network.schema.unpack(network.read())


def phases(name: str, x: Arrays) -> list[Phase]:
    """What the sites of some strategies do in a round."""
    drift = {name: np.full_like(a, 1e-3) for name, a in x.items() if a.dtype == np.float32}
    own: Arrays = {name: a * np.float32(1.1) if a.dtype == np.float32 else a for name, a in x.items()}
    return {
        "fedavg": [Phase(2)],
        "fedprox": [Phase(2, pull=0.5)],
        "feddyn": [Phase(2, pull=0.5, drift=drift)],
        "scaffold": [Phase(2, drift=drift)],
        "ditto": [Phase(2, start=own, pull=0.1), Phase(2, start=x)],
        "fedrep": [Phase(1, only=HEAD), Phase(1, only=frozenset(x) - HEAD)],
    }[name]


def rounds(network: Network, images: Images, x: Arrays, name: str, how: TrainSettings) -> list[bytes]:
    """The ends of all phases of two rounds, the second from another model."""
    ends, y = list[bytes](), x
    for number in (1, 2):
        network.hold(y)
        span = Span(number, 2, 0, "site")
        trained = train(network, images, how, phases(name, y), y, span, lambda: False)
        ends += [network.schema.pack(journey.end) for journey in trained.journeys]
        y = {name: a * 0.5 if a.dtype == np.float32 else a for name, a in trained.journeys[-1].end.items()}
    return ends


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_steps_as_written_are_plain_torch(network: Network, images: Images, x: Arrays, optimizer: str) -> None:
    how = settings(optimizer)
    network.hold(x)
    trained = train(network, images, how, [Phase(2)], x, Span(1, 1, 0, "site"), lambda: False)
    plain = Network(network.architecture, CPU)
    plain.hold(x)
    plain.model.train()
    kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.AdamW
    moves = kind(plain.weights.values(), lr=how.lr, weight_decay=how.weight_decay, fused=True)
    for epoch in (0, 1):
        for pixels, masks in batches(images, how.batch, seed_of(0, "site", 1, epoch), augment=False):
            moves.zero_grad()
            segmentation_loss(plain.model(normalise(pixels)), masks).backward()
            moves.step()
    assert plain.read() == trained.packed != network.schema.pack(x)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("name", ["fedavg", "fedprox", "feddyn", "scaffold", "ditto", "fedrep"])
def test_replayed_steps_are_those_as_written(
    network: Network, images: Images, x: Arrays, name: str, optimizer: str, request: pytest.FixtureRequest
) -> None:
    """Also with another model, another correction, another optimizer's state and a last batch of its own size."""
    expected = rounds(network, images, x, name, settings(optimizer))
    recorder: Rerun = request.getfixturevalue("replayed")
    assert rounds(network, images, x, name, settings(optimizer)) == expected
    # Two sizes of batch; of two forms for ditto, and for fedrep too, but there the small batch comes but twice.
    assert recorder.recorded == {"ditto": 4}.get(name, 2)


def test_the_rate_of_a_replayed_step_is_the_steps_own(
    network: Network, images: Images, x: Arrays, request: pytest.FixtureRequest
) -> None:
    how = settings("sgd", "cosine", 1e-2)
    expected = rounds(network, images, x, "fedavg", how)
    request.getfixturevalue("replayed")
    for mine, plain in zip(rounds(network, images, x, "fedavg", how), expected, strict=True):
        for a, b in zip(*(network.schema.unpack(end).values() for end in (mine, plain)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_rare_work_is_not_recorded_and_frequent_work_once_a_shape() -> None:
    recorder = Rerun(after=3)
    double = Repeated(lambda batch: batch * 2, recorder)
    for _ in range(3):
        assert double(torch.ones(2)).tolist() == [2, 2]
    assert recorder.recorded == 0
    assert double(torch.full((2,), 5.0)).tolist() == [10, 10]
    assert double(torch.full((2,), 7.0)).tolist() == [14, 14]
    assert double(torch.ones(3)).tolist() == [2, 2, 2]
    assert recorder.recorded == 1


@pytest.mark.parametrize("compile", ["graph", "inductor"])
def test_a_graph_on_a_cpu_is_refused_with_the_cure(compile: Compile) -> None:
    with pytest.raises(SettingsError, match=rf"train\.compile = '{compile}' captures on a GPU, .* use auto or off"):
        find_place(PlaceSettings("cpu", "auto", 1, compile))


def test_the_form_that_is_recorded_is_warmed_up() -> None:
    done: list[str] = []

    def form(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        return lambda batch: done.append(name) or batch

    repeated = Repeated(form("written"), Rerun(after=WARM + 2), form("replayed"))
    for _ in range(WARM + 4):
        repeated(torch.ones(2))
    assert done == ["written"] * 2 + ["replayed"] * (WARM + 2)


def test_nothing_is_recorded_on_a_cpu_nor_where_that_is_off() -> None:
    assert recorder_at(Place(torch.device("cpu"), False, "auto")) is None
    assert recorder_at(Place(torch.device("cuda", 0), False, "off")) is None


def test_sites_on_a_cpu_have_networks_of_their_own() -> None:
    architecture = Architecture("small", norm="group")
    assert network_at(architecture, CPU) is not network_at(architecture, CPU)


# ---- on a GPU


@pytest.fixture
def sums_in_order(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Libraries take algorithms that repeat, where they have any: AdamW makes full steps of what rounding leaves."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.gpu
@pytest.mark.usefixtures("sums_in_order")
@pytest.mark.parametrize(("bf16", "close"), [(False, 1e-2), (True, 0.1)])
@pytest.mark.parametrize(("optimizer", "norm"), [("adamw", "group"), ("sgd", "batch")])
@pytest.mark.parametrize("name", ["fedavg", "fedprox", "scaffold", "ditto", "fedrep"])
def test_a_graph_trains_as_the_steps_as_written(
    images: Images,
    name: str,
    optimizer: str,
    norm: Norm,
    bf16: bool,
    close: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within `close` of the length of each phase's own way, captured as they are written: a graph may sum otherwise.

    A bias before BatchNorm has no gradient but rounding, and AdamW would make full steps of that.
    """
    monkeypatch.setattr(Objective, "replayed", lambda self, batch: self.as_written)
    torch.manual_seed(0)
    how, x, ends = settings(optimizer), dict[str, Arrays](), {}
    for compile in ("off", "graph"):
        network = Network(Architecture("small", norm=norm), Place(torch.device("cuda:0"), bf16, compile))
        x = x or network.schema.unpack(network.read())
        ends[compile] = [network.schema.unpack(end) for end in rounds(network, images, x, name, how)]
    assert any(repeated._recorded for kept in network.steps._kept.values() for repeated in kept.forms.values())

    def apart(a: Arrays, b: Arrays) -> float:
        return float(np.sqrt(sum(np.square(a[n] - b[n], dtype=np.float64).sum() for n in network.weights)))

    starts = [phase.start or x for phase in phases(name, x)]
    if name == "fedrep":  # its second phase goes on where the first one ended
        starts[1] = ends["off"][0]
    ways = [apart(end, start) for end, start in zip(ends["off"], starts, strict=False)]
    assert min(ways) > 0
    for mine, plain, way in zip(ends["graph"], ends["off"], 2 * ways, strict=True):
        assert apart(mine, plain) < close * way


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("compile", ["graph", "inductor"])
def test_what_is_captured_has_the_loss_and_the_gradients_of_the_step_as_written(
    compile: Compile, norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, whose convolutions would else be in TF32; of one step, since many make much of its rounding."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    place = Place(torch.device("cuda:0"), False, compile)
    torch.manual_seed(0)
    network = Network(Architecture("small", norm=norm), place)
    objective = Objective(network.model.train(), place)
    pixels = torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8, device="cuda")
    masks = (pixels[..., 0] > 128).byte()
    losses, gradients = [], []
    for loss_of in (objective.as_written, objective.replayed(4)):
        losses.append(loss_of(pixels, masks))
        gradients.append(torch.autograd.grad(losses[-1], list(network.weights.values())))
    torch.testing.assert_close(*losses, rtol=1e-4, atol=1e-5)
    for name, *both in zip(network.weights, *gradients, strict=True):
        assert (both[0] - both[1]).norm() <= 1e-2 * both[0].norm() + 1e-5, name


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("compile", ["graph", "inductor"])
def test_what_is_captured_in_bf16_is_as_near_to_float32_as_the_step_as_written(compile: Compile, norm: Norm) -> None:
    """Roundings differ by as much as the gradients do, so both forms are held against float32."""
    torch.manual_seed(0)
    network = Network(Architecture("small", norm=norm), Place(torch.device("cuda:0"), True, compile))
    model, weights = network.model.train(), list(network.weights.values())
    exact, rounded = (Objective(model, replace(network.place, bf16=bf16)) for bf16 in (False, True))
    pixels = torch.randint(256, (4, 64, 64, 3), dtype=torch.uint8, device="cuda")
    masks = (pixels[..., 0] > 128).byte()
    reference, written, replayed = (
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(loss_of(pixels, masks), weights)])
        for loss_of in (exact.as_written, rounded.as_written, rounded.replayed(4))
    )
    assert (replayed - reference).norm() <= 1.5 * (written - reference).norm() < reference.norm()


@pytest.mark.gpu
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_steps_in_the_form_that_is_captured_learn(images: Images, norm: Norm) -> None:
    """The loss of a network that replays falls as that of one that does not: paths part, ends are alike."""
    losses = {}
    for compile in ("off", "graph"):
        torch.manual_seed(0)
        network = Network(Architecture("small", norm=norm), Place(torch.device("cuda:0"), True, compile))
        x = network.schema.unpack(network.read())
        network.hold(x)
        how = replace(settings(lr=2.0**-8), epochs=20)
        trained = train(network, images, how, [Phase(20)], x, Span(1, 1, 0, "site"), lambda: False)
        losses[compile] = trained.loss
    assert losses["graph"] == pytest.approx(losses["off"], rel=0.5)
    assert losses["off"] < 0.5


@pytest.mark.gpu
def test_sites_on_a_gpu_share_its_network_and_its_graphs() -> None:
    place = Place(torch.device("cuda:0"), True, "auto")
    architecture = Architecture("small", norm="group")
    assert network_at(architecture, place) is network_at(architecture, place)
    assert network_at(Architecture("small"), place) is not network_at(architecture, place)


@pytest.mark.gpu
def test_captured_logits_follow_the_model_that_is_held() -> None:
    network = Network(Architecture("small"), Place(torch.device("cuda:0"), False, "graph"))
    pixels = torch.randint(256, (2, 32, 32, 3), dtype=torch.uint8)
    x = network.schema.unpack(network.read())
    network.model.eval()
    with torch.inference_mode():
        for scale in (1.0, 1.0, 1.0, 1.0, 0.5, 2.0):
            network.hold({name: a * np.float32(scale) if a.dtype == np.float32 else a for name, a in x.items()})
            expected = network.model(normalise(pixels.cuda())).clone()
            torch.testing.assert_close(network.logits(pixels), expected, rtol=1e-4, atol=1e-4)
