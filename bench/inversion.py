"""A picture read out of one update, with and without privacy: the attack of a server on a generated picture.

The site takes one step of SGD on one picture, by the program's own code: plainly, and as a private one with the noise
that a study of 500 patients, 64 a step, 12 rounds of 2 epochs, takes for each epsilon. The attacker is the strongest
there is: it knows the network, the settings, the mask, and, of a private step, the share of every other patient, so
that what it holds of this one is its clipped gradient and the noise. It looks for the picture z whose gradient points
the same way as the update (Geiping et al. 2020, https://arxiv.org/abs/2003.14053, equation 4),

    1 - <grad L(z), u> / (|grad L(z)| |u|) + weight * TV(z)

from coarse to fine: first for a picture of 4 x 4 pixels, then from that for one of 8 x 8, and so on. Prints PSNR and
SSIM of what it found, beside those of a grey that knows the picture's mean alone, and draws them.

    python bench/inversion.py --out docs/inversion.png [--epsilons 8,1] [--kind dermoscopy] [--side 32] [--steps 400]
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor, nn
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from client.data import MEAN, SCALE, Images, normalise
from client.device import PlaceSettings, find_place
from client.network import Network
from client.privacy.phase import private_phase
from client.privacy.plan import make_plan
from client.privacy.randomness import Randomness
from client.privacy.settings import PrivacySettings
from client.step import make_optimizer
from client.training import Leg, Span, TrainSettings, run_phase
from protocol.settings import resolve, section
from simulation.drawing import PRINT, style
from simulation.phantoms import phantom
from strategies.local import Arrays, Phase
from urwkv import Architecture
from urwkv.losses import segmentation_loss
from urwkv.ops import biwkv

PATIENTS, BATCH, ROUNDS, EPOCHS = 500, 64, 12, 2
LEARNING_RATE = 1.0
WEIGHT = 0.01
"""Of the total variation."""
PACE = 0.1
"""Learning rate of the attack's Adam, falling to 0 along a cosine at each size."""
COARSEST = 4
FLAT = "one grey"


def picture(kind: str, side: int, seed: int) -> Images:
    """One generated picture, in grey."""
    pixels, mask = phantom(kind, side, np.random.default_rng(seed))
    grey = pixels.mean(axis=2, keepdims=True).round().astype(np.uint8)
    return Images(grey[None], mask[None], ("picture",))


def plain_update(network: Network, x: Arrays, images: Images) -> dict[str, np.ndarray]:
    """x - y of one step on the picture."""
    network.hold(x)
    settings = TrainSettings(1, 1, LEARNING_RATE, "sgd", 0.0, "constant", augment=False)
    run_phase(network, images, settings, Leg(Phase(1), 0, 1), x, Span(1, 1, 0, "site"), lambda: False)
    return moved(network, x)


def private_update(network: Network, x: Arrays, images: Images, epsilon: float, seed: int) -> dict[str, np.ndarray]:
    """x - y of one step on the picture and noise alone, as if the other patients' shares were known; times L."""
    own = {"privacy.epsilon": epsilon, "privacy.batch": BATCH}
    plan = make_plan(section(resolve(own), "privacy", PrivacySettings), PATIENTS, EPOCHS, ROUNDS)
    print(f"epsilon {epsilon:g}: sigma {plan.noise:.3g}, bound {plan.settings.clip:g}", flush=True)
    alone = replace(plan, units=1, rate=1.0, batch=1.0, steps=1)
    network.hold(x)
    network.moves()
    private_phase(
        network.passes,
        images,
        [np.array([0])],
        alone,
        epochs=1,
        make_optimizer=lambda weights: make_optimizer("sgd", weights, LEARNING_RATE, 0.0),
        learning_rate=lambda step: LEARNING_RATE,
        randomness=Randomness(seed),
        augment=False,
    )
    return moved(network, x)


def moved(network: Network, x: Arrays) -> dict[str, np.ndarray]:
    y = network.schema.unpack(network.read())
    return {name: x[name] - y[name] for name in network.weights}


def attack(
    model: nn.Module, update: Mapping[str, np.ndarray], mask: Tensor, side: int, steps: int, seed: int
) -> tuple[Tensor, float]:
    """The picture that was found, (1, 1, side, side) in the network's units, and the distance of its gradient."""
    weights = list(model.parameters())
    aim = [torch.from_numpy(update[name]) for name, _ in model.named_parameters()]
    z = 0.01 * torch.randn(1, 1, COARSEST, COARSEST, generator=torch.Generator().manual_seed(seed))
    distance = math.nan
    for size in (COARSEST * 2**n for n in range(int(math.log2(side / COARSEST)) + 1)):
        z = F.interpolate(z, size=(size, size), mode="bilinear").requires_grad_()
        optimizer = torch.optim.Adam([z])
        for step in range(steps):
            optimizer.param_groups[0]["lr"] = PACE * 0.5 * (1 + math.cos(math.pi * step / steps))
            whole = F.interpolate(z, size=(side, side), mode="bilinear")
            gradient = torch.autograd.grad(segmentation_loss(model(whole), mask), weights, create_graph=True)
            apart = 1 - cosine(gradient, aim)
            (z.grad,) = torch.autograd.grad(apart + WEIGHT * total_variation(whole), z)
            optimizer.step()
            with torch.no_grad():
                z.clamp_(-MEAN / SCALE, MEAN / SCALE)
        z, distance = z.detach(), float(apart.detach())
    return z, distance


def cosine(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Of the angle between two lists of tensors, each taken as one vector."""
    dot = torch.stack([(a * b).sum() for a, b in zip(one, other, strict=True)]).sum()
    norms = [torch.stack([a.square().sum() for a in each]).sum().sqrt() for each in (one, other)]
    return dot / (norms[0] * norms[1])


def total_variation(z: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, down and across."""
    return (z[..., 1:, :] - z[..., :-1, :]).abs().mean() + (z[..., 1:] - z[..., :-1]).abs().mean()


def likeness(found: Tensor, truth: Tensor) -> tuple[float, float]:
    """PSNR in dB, and SSIM, over the range from black to white."""
    return (
        float(peak_signal_noise_ratio(found, truth, data_range=2 * MEAN / SCALE)),
        float(structural_similarity_index_measure(found, truth, data_range=2 * MEAN / SCALE)),
    )


def draw(panels: Mapping[str, Tensor], truth: Tensor, path: Path) -> None:
    with style(PRINT):
        figure = Figure((1.75 * len(panels), 2.3), layout="constrained")
        for axes, (name, z) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
            axes.imshow(z[0, 0], cmap="gray", vmin=-MEAN / SCALE, vmax=MEAN / SCALE, interpolation="nearest")
            axes.set_axis_off()
            axes.set_title(name, pad=6, loc="center")
            if z is not truth:
                axes.text(
                    0.5,
                    -0.1,
                    "PSNR {:.1f} dB, SSIM {:.2f}".format(*likeness(z, truth)),
                    transform=axes.transAxes,
                    ha="center",
                    fontsize=7,
                )
        figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--epsilons", default="8,1")
    parser.add_argument("--kind", default="dermoscopy")
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400, help="at each size")
    parser.add_argument("--seed", type=int, default=0)
    words = parser.parse_args()
    images = picture(words.kind, words.side, words.seed)
    torch.manual_seed(words.seed)
    place = find_place(PlaceSettings("cpu", "fp32", 1, "off"))
    network = Network(Architecture("small", norm="group", in_channels=1), place)
    x = {name: array.copy() for name, array in network.schema.unpack(network.read()).items()}
    updates = {"plain update": plain_update(network, x, images)}
    for epsilon in map(float, words.epsilons.split(",")):
        updates[f"epsilon {epsilon:g}"] = private_update(network, x, images, epsilon, words.seed)
    network.hold(x)
    # the attack differentiates twice, which the direct sum alone can
    network.model.darm.spatial.biwkv = partial(biwkv, backend="reference")
    truth, mask = normalise(torch.from_numpy(images.images)), torch.from_numpy(images.masks)
    panels = {"original": truth}
    print("| | gradient's distance | PSNR, dB | SSIM |\n|---|---|---|---|")
    print("| {} | | {:.1f} | {:.2f} |".format(FLAT, *likeness(torch.full_like(truth, float(truth.mean())), truth)))
    for name, update in updates.items():
        panels[name], distance = attack(network.model, update, mask, words.side, words.steps, words.seed + 1)
        print("| {} | {:.4f} | {:.1f} | {:.2f} |".format(name, distance, *likeness(panels[name], truth)), flush=True)
    draw(panels, truth, words.out)


if __name__ == "__main__":
    main()
