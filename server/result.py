"""What a run leaves when it is done: result.json, and the best and the last model as safetensors."""

import json
from pathlib import Path
from typing import Any

import torch

from protocol.atomic import write_atomic
from protocol.messages import Reply
from protocol.settings import Table, section
from server.journal import Arrays, State
from server.scores import pooled, worst
from urwkv import Architecture
from urwkv.weights import save_model

SCHEMA = 1
METRICS = ("dice", "iou", "hd95", "nsd")


def write_result(run: Path, state: State, tests: dict[str, Reply]) -> None:
    """Write `model.safetensors` (best), `last.safetensors` and, last, `result.json` into the run's folder."""
    _write_model(run / "model.safetensors", state, state.best, state.best_round)
    _write_model(run / "last.safetensors", state, state.model, state.round)
    write_atomic(run / "result.json", json.dumps(result(state, tests), indent=1))


def result(state: State, tests: dict[str, Reply]) -> dict[str, Any]:
    """The content of result.json."""
    table, replies = state.settings, tests.values()
    final = {
        "global_dice": pooled(replies, "test", "dice"),
        "global_iou": pooled(replies, "test", "iou"),
        "hd95": pooled(replies, "test", "hd95"),
        "nsd": pooled(replies, "test", "nsd"),
        "worst_site_dice": worst(replies, "test", "dice"),
        "sites": {
            name: {metric: reply.scalars.get(f"test.{metric}") for metric in METRICS}
            for name, reply in tests.items()
            if reply.scalars.get("test.images") and "test.dice" in reply.scalars
        },
        "best_round": state.best_round,
    }
    return {
        "schema": SCHEMA,
        "strategy": table["federation.strategy"],
        "engine": table["run.engine"],
        "seed": table["seed"],
        "device": device_name(table),
        "sites": state.sites,
        "rounds": state.history,
        "final": final,
        "seconds": state.seconds,
    }


def device_name(table: Table) -> str:
    """What the sites computed on, where this process can know: on this machine in a simulation."""
    if table["run.engine"] == "deployment":
        return "the sites' own"
    wants_gpu = str(table["train.device"]).startswith(("auto", "cuda"))
    return torch.cuda.get_device_name() if wants_gpu and torch.cuda.is_available() else "cpu"


def _write_model(path: Path, state: State, arrays: Arrays, round_number: int) -> None:
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    words = {"round": str(round_number), "data.size": str(state.settings["data.size"])}
    save_model(path, tensors, section(state.settings, "model", Architecture), words)
