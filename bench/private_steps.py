"""What privacy costs to compute: images a second and memory, with and without, at the same logical batch.

    python bench/private_steps.py [--variant base] [--side 256] [--batch 64,256] [--physical 64] [--steps 4]

Steps as training takes them, from pictures in memory to new weights, the noise with them; on a GPU as captured
graphs, as in any long run. The last row of bf16 is how far per-sample gradients lie from those in float32, and how
far those of a loop of plain backward passes over the same single images do, which rounds as well.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch

from bench.table import Aim, heading, row
from client.data import Images, normalise
from client.device import Place, PlaceSettings, find_place
from client.network import Network
from client.privacy.draws import rows_by_unit
from client.privacy.hooks import per_sample_gradients
from client.privacy.phase import private_phase
from client.privacy.plan import Plan
from client.privacy.randomness import Randomness
from client.privacy.settings import PrivacySettings
from client.repeated import WARM
from client.step import make_optimizer
from client.training import Leg, Span, TrainSettings, run_phase
from protocol.settings import Table, resolve, section
from strategies.local import Phase
from urwkv import Architecture
from urwkv.losses import image_losses

REACH = {"all": "a quarter of the plain speed", "decoder": "half of the plain speed", "head_and_norms": ""}

COMPARED = 8
"""Images whose gradients are compared between precisions."""


def pictures(count: int, side: int) -> Images:
    """Noise, and masks with something in them: steps cost the same whatever they are of."""
    rng = np.random.default_rng(0)
    masks = np.zeros((count, side, side), np.uint8)
    masks[:, side // 4 : side // 2, side // 4 : side // 2] = 1
    names = tuple(map(str, range(count)))
    return Images(rng.integers(0, 256, (count, side, side, 3), np.uint8), masks, names)


def plain(images: Images, settings: TrainSettings, network: Network, steps: int) -> None:
    leg = Leg(Phase(steps), 0, steps)
    run_phase(network, images, settings, leg, {}, Span(1, 1, 0, "site"), lambda: False)


def private(images: Images, settings: TrainSettings, plan: Plan, network: Network, steps: int) -> None:
    network.moves()
    private_phase(
        network.passes,
        images,
        rows_by_unit(images.names, "example"),
        plan,
        epochs=steps,
        make_optimizer=lambda weights: make_optimizer(
            settings.optimizer, weights, settings.lr, settings.weight_decay
        ),
        learning_rate=lambda step: settings.lr,
        randomness=Randomness(),
        augment=settings.augment,
    )


def measured(work: Callable[[int], None], steps: int, batch: int, device: torch.device) -> tuple[float, float]:
    """Images a second of `steps` steps after those to warm up, and the most memory of the GPU in GiB, by then."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    work(WARM + 1)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    work(steps)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    speed = steps * batch / (time.perf_counter() - began)
    memory = torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0
    return speed, memory


def single_images(network: Network, images: Images, *, bf16: bool, hooks: bool) -> torch.Tensor:
    """The gradients of single images (B, weights), by hooks or by a loop of plain backward passes."""
    place, model = replace(network.place, bf16=bf16), network.model.train()
    pixels, masks = (place.send(torch.from_numpy(array)) for array in (images.images, images.masks))

    def backward(rows: slice) -> None:
        with place.autocast():
            loss = image_losses(model(normalise(pixels[rows])), masks[rows]).sum()
        torch.autograd.backward(loss)

    if hooks:
        with per_sample_gradients(model):
            backward(slice(None))
            return torch.cat([weight.grad_sample.flatten(1) for weight in model.parameters()], dim=1)
    each = []
    for index in range(len(images)):
        model.zero_grad()
        backward(slice(index, index + 1))
        each.append(torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None]))
    return torch.stack(each)


def distances(architecture: Architecture, place: Place, images: Images) -> str:
    """How far the gradients of single images under a bf16 forward pass lie from those in float32."""
    network = Network(architecture, place)
    with torch.backends.cudnn.flags(allow_tf32=False):
        exact = single_images(network, images, bf16=False, hooks=False)
        ways = [(False, True), (True, True), (True, False)]
        found = [single_images(network, images, bf16=bf16, hooks=hooks) for bf16, hooks in ways]
    fp32, bf16, loop = (((each - exact).norm() / exact.norm()).item() for each in found)
    return f"{bf16:.2g} of their length; plain passes in bf16 {loop:.2g}; per-sample in float32 {fp32:.1g}"


class Batch:
    """The rows of one logical batch in one precision; each speed is told as a share of the plain one's, the first."""

    def __init__(self, words: argparse.Namespace, architecture: Architecture, place: Place, size: int) -> None:
        self._own: Table = {"train.batch": size, "train.augment": words.augment, "privacy.epsilon": 8.0}
        self._own |= {"privacy.batch": size, "privacy.physical": words.physical}
        self._architecture, self._place, self._size, self._steps = architecture, place, size, words.steps
        self._settings = section(resolve(self._own), "train", TrainSettings)
        self._images = pictures(size, words.side)
        self._base = 0.0

    def show(self) -> None:
        what = f"{'bf16' if self._place.bf16 else 'fp32'}, batch {self._size}"
        place = replace(self._place, compile="graph") if self._place.device.type == "cuda" else self._place
        row(f"{what}: plain", Aim(), lambda: self._told(partial(plain, self._images, self._settings), place))
        for which, reach in REACH.items():
            privacy = section(resolve(self._own, {"privacy.trainable": which}), "privacy", PrivacySettings)
            plan = Plan(privacy, units=self._size, rate=1.0, batch=float(self._size), noise=1.0, steps=1)
            work = partial(private, self._images, self._settings, plan)
            name = f"{what}: private, {which.replace('_', ' ')} learns"
            row(name, Aim(reach=reach), partial(self._told, work, place))

    def _told(self, work: Callable[[Network, int], None], place: Place) -> str:
        network = Network(self._architecture, place)  # of its own: so the memory is of this row alone
        speed, memory = measured(partial(work, network), self._steps, self._size, place.device)
        self._base = self._base or speed
        room = f", {memory:.1f} GiB" if memory else ""
        return f"{speed:.1f} images/s ({speed / self._base:.2f} of plain){room}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--variant", default="base")
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--batch", default="64,256", help="logical batches, commas between")
    parser.add_argument("--physical", type=int, default=64)
    parser.add_argument("--precision", default="", help="of: bf16,fp32; both on a GPU, fp32 on a CPU when left out")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--augment", action="store_true", help="as training does it, on the CPU")
    words = parser.parse_args()
    device = find_place(section(resolve(), "train", PlaceSettings)).device
    print(f"{words.variant}, {words.side} x {words.side}, {words.physical} images at a time, {device}\n")
    heading()
    architecture = section(resolve({"model.variant": words.variant}), "model", Architecture)
    for precision in (words.precision or ("bf16,fp32" if device.type == "cuda" else "fp32")).split(","):
        place = find_place(section(resolve({"train.precision": precision}), "train", PlaceSettings))
        for size in words.batch.split(","):
            Batch(words, architecture, place, int(size)).show()
        if place.bf16:
            work = partial(distances, architecture, place, pictures(COMPARED, words.side))
            row("bf16: per-sample gradients from float32", Aim(reach="as near as plain passes"), work)


if __name__ == "__main__":
    main()
