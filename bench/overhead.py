"""What the federation costs over the work itself: the local engine against a plain loop of the same steps.

Both read the same site folders, take the same gradient steps on the same batches and evaluate the same images
as often; the plain loop averages the weights on the device and knows no messages, gate, journal or tracking.
Each run has a thread of its own, since cuDNN chooses its kernels anew in every thread. Runs alternate; the ratio
is that of the medians.

    python bench/overhead.py [SCENARIO.yaml] [--set K=V]... [--repeat N]
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from client.data import load_split
from client.device import PlaceSettings, find_place
from client.evaluation import evaluate
from client.network import Network
from client.site import read_site
from client.trainer import SiteData
from client.training import Leg, Span, TrainSettings, run_phase
from protocol.settings import Table, load_scenario, parse_assignment, resolve, section
from server.app import initial_model
from server.progress import LOOK_EVERY
from simulation.engines import run_local
from simulation.settings import check_settings
from simulation.sites import make_sites
from strategies.local import Phase
from urwkv import Architecture


def plain_loop(table: Table, folders: list[Path]) -> float:
    """Seconds of federated averaging as a plain loop over the sites."""
    began = time.perf_counter()
    place = find_place(section(table, "train", PlaceSettings))
    data, settings = section(table, "data", SiteData), section(table, "train", TrainSettings)
    architecture = section(table, "model", Architecture)
    seed, rounds = int(table["seed"]), int(table["federation.rounds"])
    sites = [read_site(folder, seed=seed, val=data.val, test=data.test) for folder in folders]
    images = [
        {
            s: load_split(site, s, data.size, architecture.in_channels, architecture.num_classes)
            for s in ("train", "val", "test")
        }
        for site in sites
    ]
    network, leg = Network(architecture, place), Leg(Phase(settings.epochs), 0, settings.epochs)
    model = network.model
    x = {name: torch.from_numpy(array).to(place.device) for name, array in initial_model(table).items()}
    total = sum(len(i["train"]) for i in images)
    best, best_dice = x, -1.0
    for number in range(1, rounds + 2):
        mean = {name: torch.zeros_like(tensor, dtype=torch.float64) for name, tensor in x.items()}
        dice = 0.0
        for site, split in zip(sites, images, strict=True):
            model.load_state_dict(x)
            scores = evaluate(network.logits, split["val"], architecture.num_classes, place, surfaces=False)
            dice += scores["images"] * scores["dice"]
            if number <= rounds:
                span = Span(number, rounds, seed, site.name)
                run_phase(network, split["train"], settings, leg, {}, span, lambda: False)
                for name, tensor in model.state_dict().items():
                    mean[name] += tensor.double() * (len(split["train"]) / total)
        if number > 1 and dice > best_dice:
            best, best_dice = x, dice
        x = {name: tensor.to(x[name].dtype) for name, tensor in mean.items()}
    model.load_state_dict(best)
    for split in images:
        evaluate(network.logits, split["test"], architecture.num_classes, place, surfaces=True)
    return time.perf_counter() - began


def local_engine(table: Table, folders: list[Path]) -> float:
    """Seconds of the same federation under the local engine, into a fresh folder."""
    with tempfile.TemporaryDirectory() as out:
        where = {
            "run.engine": "local",
            "run.out": out,
            "run.sites": str(folders[0].parent),
            "federation.sites": len(folders),
        }
        began = time.perf_counter()
        run_local({**table, **where}, len(folders), wait)
        return time.perf_counter() - began


def wait(is_over: Callable[[float], bool]) -> None:
    while not is_over(LOOK_EVERY):
        pass


def in_thread(measure: Callable[[Table, list[Path]], float], table: Table, folders: list[Path]) -> float:
    with ThreadPoolExecutor(1) as fresh:
        return fresh.submit(measure, table, folders).result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenario", nargs="?", type=Path)
    parser.add_argument("--set", dest="sets", action="append", default=[])
    parser.add_argument("--repeat", type=int, default=3)
    words = parser.parse_args()
    table = resolve(load_scenario(words.scenario) if words.scenario else {}, dict(map(parse_assignment, words.sets)))
    settings = check_settings(table)
    with tempfile.TemporaryDirectory() as work:
        folders = make_sites(settings, int(table["seed"]), Path(work) / "sites")
        in_thread(plain_loop, {**table, "federation.rounds": 1}, folders)  # warm-up of libraries, for both
        plain, local = [], []
        for _ in range(words.repeat):
            plain.append(in_thread(plain_loop, table, folders))
            local.append(in_thread(local_engine, table, folders))
            print(f"plain loop {plain[-1]:.2f} s   local engine {local[-1]:.2f} s", flush=True)
    ratio = statistics.median(local) / statistics.median(plain)
    print(f"local engine / plain loop = {ratio:.3f} (medians of {words.repeat})")


if __name__ == "__main__":
    main()
