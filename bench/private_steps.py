"""What privacy costs to compute: images a second and memory, with and without, at the same logical batch.

python bench/private_steps.py [--variant base] [--side 256] [--batch 64] [--physical 16] [--steps 4]
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from bench.table import Aim, heading, row
from client.data import Images
from client.device import PlaceSettings, find_place
from client.network import Network
from client.privacy.draws import rows_by_unit
from client.privacy.phase import private_phase
from client.privacy.plan import Plan
from client.privacy.randomness import Randomness
from client.privacy.settings import PrivacySettings
from client.step import make_optimizer
from client.training import Leg, Span, TrainSettings, run_phase
from protocol.settings import Table, resolve, section
from strategies.local import Phase
from urwkv import Architecture

REACH = {"all": "a quarter of the plain speed", "decoder": "half of the plain speed", "head_and_norms": ""}


def pictures(count: int, side: int) -> Images:
    """Noise, and masks with something in them: steps cost the same whatever they are of."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, side, side), np.uint8)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = 1
    names = tuple(map(str, range(count)))
    return Images(rng.integers(0, 256, (count, side, side, 3), np.uint8), masks, names)


def plain(network: Network, images: Images, settings: TrainSettings, steps: int) -> None:
    leg = Leg(Phase(steps), 0, steps)
    run_phase(network, images, settings, leg, {}, Span(1, 1, 0, "site"), lambda: False)


def private(network: Network, images: Images, settings: TrainSettings, plan: Plan, steps: int) -> None:
    network.moves()
    private_phase(
        network.model,
        images,
        rows_by_unit(images.names, "example"),
        plan,
        epochs=steps,
        make_optimizer=lambda weights: make_optimizer(
            settings.optimizer, weights, settings.lr, settings.weight_decay
        ),
        learning_rate=lambda step: settings.lr,
        place=network.place,
        randomness=Randomness(),
        augment=settings.augment,
    )


def measured(work: Callable[[int], None], steps: int, batch: int, device: torch.device) -> tuple[float, float]:
    """Images a second of `steps` steps after one to warm up, and the most memory of the GPU in GiB."""
    work(1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    began = time.perf_counter()
    work(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    speed = steps * batch / (time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return speed, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="base")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--physical", type=int, default=16)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--augment", action="store_true", help="as training does it, on the CPU")
    words = parser.parse_args()
    own: Table = {"model.variant": words.variant, "train.batch": words.batch, "privacy.epsilon": 8.0}
    own |= {"privacy.batch": words.batch, "privacy.physical": words.physical, "train.augment": words.augment}
    place = find_place(section(resolve(own), "train", PlaceSettings))
    settings = section(resolve(own), "train", TrainSettings)
    images = pictures(words.batch, words.side)
    network = Network(section(resolve(own), "model", Architecture), place)
    precision = "bf16" if place.bf16 else "fp32"
    print(f"{words.variant}, {words.side} x {words.side}, batch {words.batch}, {place.device}, {precision}\n")
    heading()
    base = 0.0

    def told(work: Callable[[int], None]) -> str:
        nonlocal base
        speed, memory = measured(work, words.steps, words.batch, place.device)
        base = base or speed
        room = f", {memory:.1f} GiB" if memory else ""
        return f"{speed:.1f} images/s ({speed / base:.2f} of plain){room}"

    row("plain", Aim(), lambda: told(partial(plain, network, images, settings)))
    for which, reach in REACH.items():
        privacy = section(resolve(own, {"privacy.trainable": which}), "privacy", PrivacySettings)
        plan = Plan(privacy, units=words.batch, rate=1.0, batch=float(words.batch), noise=1.0, steps=1)
        work = partial(private, network, images, settings, plan)
        row(f"private, {which.replace('_', ' ')} learns", Aim(reach=reach), partial(told, work))


if __name__ == "__main__":
    main()
