"""Numbers over sites: pooled and worst scores, the record of a round, and what the wall time went to."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from protocol.messages import Reply


def pooled(replies: Collection[Reply], split: str, metric: str) -> float | None:
    """The mean of a per-image metric over the images of all sites; None when no site has images there."""
    images = [reply.scalars.get(f"{split}.images", 0.0) for reply in replies]
    values = [reply.scalars.get(f"{split}.{metric}", 0.0) for reply in replies]
    total = sum(images)
    return sum(n * value for n, value in zip(images, values, strict=True)) / total if total else None


def worst(replies: Collection[Reply], split: str, metric: str) -> float | None:
    """The lowest mean of a per-image metric among the sites that have images in the split."""
    return min((r.scalars[f"{split}.{metric}"] for r in replies if r.scalars.get(f"{split}.images")), default=None)


def record(number: int, replies: Mapping[str, Reply], failed: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """The record of a round as result.json has it, its model not scored yet."""
    sites = {name: {**unscored(), "loss": r.scalars["train.loss"], "seconds": computed(r)} for name, r in replies.items()}
    return {
        "round": number,
        "global_dice": None,
        "worst_site_dice": None,
        "train_loss": pooled(replies.values(), "train", "loss"),
        "sites": dict(sorted(sites.items())),
        "failed": dict(sorted(failed.items())),
        "seconds": seconds,
    }


def unscored() -> dict[str, float | None]:
    """The entry of a site in a round's record before anything is known."""
    return {"dice": None, "iou": None, "loss": None, "seconds": None, "epsilon": None}


def computed(reply: Reply) -> float:
    """Seconds that the site spent on the task, of all phases."""
    return sum(value for name, value in reply.scalars.items() if name.startswith("seconds."))


def split_wait(waited: float, replies: Collection[Reply]) -> dict[str, float]:
    """What the seconds of waiting for the replies went to: `train`, `evaluate` and `transfer`.

    Sites that computed side by side count as lanes, the fewest in which their work fits into the wait; what
    the lanes leave over is transfer (and idleness).
    """
    work = sum(computed(reply) for reply in replies)
    lanes = max(1, math.ceil(work / waited)) if waited else 1
    train = sum(reply.scalars.get("seconds.train", 0.0) for reply in replies)
    return {"train": train / lanes, "evaluate": (work - train) / lanes, "transfer": max(0.0, waited - work / lanes)}
