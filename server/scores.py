"""Numbers over sites: pooled and worst scores, the record of a round, and what the wall time went to."""

import math
from collections.abc import Collection, Mapping
from typing import Any

from protocol.messages import Reply

CLOCKS = 0.05
"""How far, as a share of the wait, the sites' clocks may disagree with the server's before a lane is added."""


def pooled(replies: Collection[Reply], split: str, metric: str) -> float | None:
    """The mean of a per-image metric over the images of all sites that tell it; None when none does."""
    scored = _told(replies, split, metric)
    total = sum(images for images, _ in scored)
    return sum(images * value for images, value in scored) / total if scored else None


def worst(replies: Collection[Reply], split: str, metric: str) -> float | None:
    """The lowest mean of a per-image metric among the sites that have images in the split and tell it."""
    return min((value for _, value in _told(replies, split, metric)), default=None)


def _told(replies: Collection[Reply], split: str, metric: str) -> list[tuple[float, float]]:
    """The images of each site and its mean, where a site has any and lets both out."""
    images, name = f"{split}.images", f"{split}.{metric}"
    return [(r.scalars[images], r.scalars[name]) for r in replies if r.scalars.get(images) and name in r.scalars]


def record(number: int, replies: Mapping[str, Reply], failed: Mapping[str, str], seconds: float) -> dict[str, Any]:
    """The record of a round as result.json has it, its model not scored yet; what a site withholds is null."""
    sites = {name: unscored() | {"seconds": computed(r) or None} for name, r in replies.items()}
    for name, reply in replies.items():
        sites[name] |= {"loss": reply.scalars.get("train.loss"), "epsilon": reply.scalars.get("epsilon")}
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


def book(total: float, exchange: float, aggregated: float, replies: Collection[Reply]) -> dict[str, float]:
    """What the wall seconds of a round went to; the parts add up to `total`.

    Sites that computed side by side count as lanes, the fewest into which their work fits; what the lanes leave
    of the exchange is aggregation, as far as it was not hidden behind computing, and transfer (with idleness).

    Args:
        total: wall seconds to account for.
        exchange: those from the first message sent to the last reply aggregated.
        aggregated: those of the exchange in which the server gated and summed.
        replies: the replies that count.
    """
    work = sum(computed(reply) for reply in replies)
    lanes = max(1, math.ceil(work / exchange - CLOCKS)) if exchange else 1
    train = sum(reply.scalars.get("seconds.train", 0.0) for reply in replies) / lanes
    idle = max(0.0, exchange - work / lanes)
    parts = {"train": train, "evaluate": work / lanes - train, "aggregate": min(aggregated, idle)}
    parts["transfer"] = idle - parts["aggregate"]
    return parts | {"other": max(0.0, total - sum(parts.values())), "total": total}
