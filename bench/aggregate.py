"""What aggregation costs: time against a plain read of the same bytes, and peak memory, by strategy and updates.

The model is the base network, 3 M parameters in float32. Updates are made as they are asked for, from a few models
that together do not fit a core's cache, so memory is that of the rule alone; what is timed is `aggregate`, which
only hands out those models again and again. The read is one pass over the bytes of all updates (a maximum, which
numpy does as fast as the memory gives), in the same process and thread. Seconds are those of the processor, so what
else the machine does counts less. Rules that see all updates side by side are taken at 1,000 updates with a hundredth
of the parameters, scaled up: their time is linear in the parameters.

    python bench/aggregate.py [--updates 8,64,1000] [--strategies fedavg,krum,...]
"""

import argparse
import sys
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np

from strategies import STRATEGIES, Arrays, Update
from urwkv import URWKV

MODELS = 16
SCALARS = {
    "train.travel": 0.5,
    "train.rate": 0.1,
    "train.effective_steps": 5.0,
    "train.loss_before": 1.0,
    "val.loss": 1.0,
    "val.loss_after": 0.9,
}
SHRINK = 100
SHRUNK_FROM = 500
"""From this many updates on, rules side by side are measured on 1/SHRINK of the parameters."""


@dataclass(frozen=True)
class Cost:
    """Processor seconds of `aggregate`, those of a plain read of its input, and the peak of memory in bytes."""

    seconds: float
    read: float
    peak: int


def base_model() -> dict[str, np.ndarray]:
    """The base network's trainable tensors."""
    return {name: tensor.numpy().copy() for name, tensor in URWKV(variant="base", norm="group").state_dict().items()}


def shrunk(x: Arrays, factor: int) -> dict[str, np.ndarray]:
    """One flat tensor with 1/factor of the model's parameters."""
    flat = np.concatenate([a.reshape(-1) for a in x.values()])
    return {"w": flat[: len(flat) // factor].copy()}


def moved(x: Arrays, seed: int) -> dict[str, np.ndarray]:
    """A model as one site may send it."""
    rng = np.random.default_rng(seed)
    return {name: a + rng.normal(0, 0.01, a.shape).astype(a.dtype) for name, a in x.items()}


def stream(models: list[dict[str, np.ndarray]], count: int) -> Iterator[Update]:
    """`count` updates from a few models, as they arrive."""
    for index in range(count):
        yield Update(f"site-{index:04d}", models[index % len(models)], 20 + index % 400, SCALARS)


def seconds_to_read(models: list[dict[str, np.ndarray]], count: int) -> float:
    """Seconds of one pass over the bytes of `count` updates, each model as one run of bytes."""
    flat = [np.concatenate([a.reshape(-1) for a in model.values()]) for model in models]
    words = [a[: a.size // 2 * 2].view(np.uint64) for a in flat]
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        for index in range(min(count, 64)):
            words[index % len(words)].max()
        best = min(best, (time.process_time() - began) / min(count, 64))
    return best * count


def measure(name: str, x: dict[str, np.ndarray], count: int) -> Cost:
    """The cost of one round of `count` updates."""
    models = [moved(x, seed) for seed in range(MODELS)]
    strategy = STRATEGIES[name]()
    repeats = 3 if count * sum(a.size for a in x.values()) < 1e8 else 1
    times = []
    for _ in range(repeats):
        began = time.process_time()
        strategy.aggregate(x, stream(models, count))
        times.append(time.process_time() - began)
    tracemalloc.start()
    if times[0] < 60:
        strategy.aggregate(x, stream(models, count))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return Cost(min(times), seconds_to_read(models, count), peak)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--updates", default="8,64,1000")
    parser.add_argument("--strategies", default=",".join(name for name in STRATEGIES if name != "cyclic"))
    words = parser.parse_args()
    x = base_model()
    size = sum(a.size for a in x.values())
    print(f"{size:,} parameters in {len(x)} tensors, {size * 4 / 1e6:.1f} MB an update; numpy {np.__version__}")
    print(f"{'strategy':17}{'updates':>8}{'seconds':>10}{'ms/update':>11}{'x read':>8}{'peak MB':>9}")
    for name in words.strategies.split(","):
        for count in map(int, words.updates.split(",")):
            factor = SHRINK if STRATEGIES[name].needs_all and count >= SHRUNK_FROM else 1
            cost = measure(name, shrunk(x, factor) if factor > 1 else x, count)
            seconds = cost.seconds * factor
            note = f"  from 1/{factor} of the parameters" if factor > 1 else ""
            print(
                f"{name:17}{count:>8}{seconds:>10.2f}{1e3 * seconds / count:>11.2f}"
                f"{cost.seconds / cost.read:>8.1f}{cost.peak / 1e6:>9.1f}{note}",
                flush=True,
            )


if __name__ == "__main__":
    main()
