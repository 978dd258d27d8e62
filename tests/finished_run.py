"""A run's folder made by hand, with plausible numbers: what the readers of a run are tested on."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from protocol.settings import defaults, dump

SITES = [("cairo-1", 301, 64, 86), ("cairo-2", 118, 25, 33), ("oslo", 220, 47, 63), ("shantou", 28, 5, 9)]
FAILED = {3: {"shantou": "update refused: 2 of 412,033 values are not finite"}}


def record(number: int, rounds: int, scored: bool = True) -> dict[str, Any]:
    """The journal's record of round `number`; the global model is not yet scored unless `scored`."""
    rng = np.random.default_rng(number)
    sites = {}
    for index, (name, train, _, _) in enumerate(SITES):
        if name in FAILED.get(number, {}) and not scored:
            continue
        top = 0.88 - 0.06 * index
        dice = top * (1 - math.exp(-4.5 * number / rounds)) + rng.normal(0, 0.012)
        loss = 0.15 + 1.1 * math.exp(-4 * number / rounds) * (1 + 0.1 * index) + abs(rng.normal(0, 0.01))
        sites[name] = {
            "dice": dice if scored else None,
            "iou": dice / (2 - dice) if scored else None,
            "loss": loss,
            "seconds": 0.02 * train + rng.uniform(0, 0.5),
            "epsilon": None,
        }
        if name in FAILED.get(number, {}):  # it scored the round's model in the next round
            sites[name] |= {"loss": None, "seconds": None}
    dice = [entry["dice"] for entry in sites.values()]
    losses = [entry["loss"] for entry in sites.values() if entry["loss"] is not None]
    return {
        "round": number,
        "global_dice": float(np.mean(dice)) if scored else None,
        "worst_site_dice": min(dice) if scored else None,
        "train_loss": float(np.mean(losses)),
        "sites": sites,
        "failed": FAILED.get(number, {}),
        "seconds": 7.5 + rng.uniform(0, 1),
        "bytes_down": len(SITES) * 1_903_104,
        "bytes_up": len(losses) * 1_903_388,
    }


def write_journal(run: Path, done: int, rounds: int, closed: bool = False) -> None:
    """The journal after round `done`: its own model is scored by the next round, or when `closed`."""
    history = [record(number, rounds, scored=closed or number < done) for number in range(1, done + 1)]
    names = ("name", "train", "val", "test")
    state = {
        "schema": 1,
        "round": done,
        "history": history,
        "sites": [dict(zip(names, s, strict=True)) for s in SITES],
    }
    folder = run / "checkpoint" / f"round-{done:04d}{'-closed' if closed else ''}"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text(json.dumps(state))
    (run / "checkpoint" / "part").write_text(folder.name)
    (run / "checkpoint" / "part").replace(run / "checkpoint" / "latest")


def write_settings(run: Path, **differences: Any) -> None:
    """settings.yaml with the defaults and `differences`, whose keys have `__` for the dot."""
    run.mkdir(parents=True, exist_ok=True)
    changed = {key.replace("__", "."): value for key, value in differences.items()}
    (run / "settings.yaml").write_text(dump(defaults() | changed))


def write_result(run: Path, rounds: int) -> None:
    """result.json after `rounds` rounds."""
    history = [record(number, rounds) for number in range(1, rounds + 1)]
    sites = {}
    for name, entry in history[-1]["sites"].items():
        dice = entry["dice"] - 0.01
        sites[name] = {"dice": dice, "iou": dice / (2 - dice), "hd95": 14 * (1 - dice) + 2, "nsd": dice - 0.12}
    dice = sum(entry["dice"] for entry in sites.values()) / len(sites)
    names = ("name", "train", "val", "test")
    result = {
        "schema": 1,
        "strategy": "fedavg",
        "engine": "local",
        "seed": 0,
        "device": "NVIDIA H200",
        "sites": [dict(zip(names, site, strict=True)) for site in SITES],
        "rounds": history,
        "final": {
            "global_dice": dice,
            "global_iou": dice / (2 - dice),
            "hd95": 5.31,
            "nsd": dice - 0.11,
            "worst_site_dice": min(entry["dice"] for entry in sites.values()),
            "sites": sites,
            "best_round": max(history, key=lambda entry: entry["global_dice"])["round"],
        },
        "seconds": {"train": 71.2, "evaluate": 9.4, "aggregate": 1.1, "transfer": 0.3, "other": 2.2, "total": 84.2},
    }
    (run / "result.json").write_text(json.dumps(result))


def finished_run(run: Path, rounds: int = 12, **differences: Any) -> Path:
    """The folder of a run that is over: settings, journal, result and a stand-in for the model."""
    write_settings(run, **differences)
    write_journal(run, rounds, rounds, closed=True)
    write_result(run, rounds)
    (run / "model.safetensors").write_bytes(b"stand-in")
    return run
