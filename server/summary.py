"""What a person reads when a run is done: the final scores by site, and where the run's parts are."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from protocol.splits import SPLITS


def show(run: Path, console: Console, tracked: str) -> None:
    """Print the final scores of a finished run and where its parts are."""
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    final = result["final"]
    table = RichTable(title=f"test scores of the best model (round {final['best_round']})", title_justify="left")
    for heading in ("site", "train", "val", "test", "Dice", "IoU", "HD95 px", "NSD"):
        table.add_column(heading, justify="left" if heading == "site" else "right")
    for site in result["sites"]:
        scores = final["sites"].get(site["name"])
        words = _scores(scores) if scores else ["-"] * 4
        table.add_row(escape(site["name"]), *(str(site[split]) for split in SPLITS), *words)
    counts = [str(sum(site[split] for site in result["sites"])) for split in SPLITS]
    pooled = {"dice": final["global_dice"], "iou": final["global_iou"], "hd95": final["hd95"], "nsd": final["nsd"]}
    table.add_section()
    table.add_row("global", *counts, *_scores(pooled), style="bold")
    console.print(table)
    console.print(
        f"global Dice {final['global_dice']:.4f} after {result['seconds']['total']:.0f} s on {result['device']}"
    )
    parts = {"report": run / "report.html", "model": run / "model.safetensors"}
    places = "".join(f"{name:<8}{short(path)}\n" for name, path in parts.items() if path.is_file())
    console.print(places + tracked, highlight=False, markup=False, soft_wrap=True)


def _scores(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores['dice']:.4f}", f"{scores['iou']:.4f}", f"{scores['hd95']:.1f}", f"{scores['nsd']:.4f}"]


def short(path: Path) -> str:
    """A path relative to the working directory where it lies below it."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
