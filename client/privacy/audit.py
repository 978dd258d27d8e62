"""`fedurwkv site audit DIR MODEL`: what attacks prove about a model and the noisy step, beside what is claimed."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from client.data import Images, load_split, normalise
from client.device import PlaceSettings, find_place
from client.evaluation import BATCH
from client.model_file import open_model, trained_side
from client.privacy.accounting import merged
from client.privacy.budget import plain
from client.privacy.canaries import canary_trial
from client.privacy.evidence import Floats, membership
from client.privacy.ledger import Entry, Ledger
from client.privacy.policy import FILE, read_policy
from client.privacy.randomness import Randomness
from client.site import read_site
from protocol.errors import DataError
from protocol.settings import Table
from urwkv.losses import image_losses

FEWEST = 4
"""Images of each kind below which an attack proves nothing: it needs two halves of two."""


def audit(folder: Path, model_file: Path, table: Table, size: int | None) -> Iterator[str]:
    """The lines to print.

    Args:
        folder: the site; its train split are the members, val and test the others.
        model_file: the model.safetensors of a study that it took part in.
        table: the study's settings: seed and shares of the splits, where to compute.
        size: side in pixels; None: as the model says.

    Raises:
        FedURWKVError: the site or the model cannot be used, or the ledger was damaged or changed.
    """
    model, words = open_model(model_file)
    policy = read_policy(folder) if (folder / FILE).exists() else None
    data = folder / policy.place.data if policy else folder
    site = read_site(data, seed=int(table["seed"]), val=float(table["data.val"]), test=float(table["data.test"]))
    where = Ledger(policy.ledger if policy else folder / "privacy")
    entries = where.entries() if where.exists() else []
    device = PlaceSettings(str(table["train.device"]), "fp32", int(table["train.threads"]), "off")
    place = find_place(device)
    model.to(place.device).eval()
    side, shape = trained_side(model_file, words, size), model.architecture

    def losses(splits: Sequence[str]) -> Floats:
        loaded = [load_split(site, split, side, shape.in_channels, shape.num_classes) for split in splits]
        return np.concatenate([_losses(model, images, place.device) for images in loaded])

    members, others = losses(["train"]), losses(["val", "test"])
    if min(len(members), len(others)) < FEWEST:
        raise DataError(
            f"{data} has {len(members)} training images and {len(others)} others: an audit needs {FEWEST} of each"
        )
    yield from _claims(entries)
    found = membership(members, others, entries[-1].delta if entries else 0.0)
    yield (
        f"membership by the loss, {len(members)} members and {len(others)} others: AUC {found.auc:.3f}"
        f" (0.5 is a coin), epsilon at least {found.epsilon:.3g}"
    )
    yield from _trial(entries)


@torch.inference_mode()
def _losses(model: nn.Module, images: Images, device: torch.device) -> Floats:
    """The loss of each image as it is, (N,)."""
    parts = [np.empty(0)]
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(images.images[start : start + BATCH]).to(device)
        masks = torch.from_numpy(images.masks[start : start + BATCH]).to(device)
        parts.append(image_losses(model(normalise(pixels)), masks).double().cpu().numpy())
    return np.concatenate(parts)


def _claims(entries: Sequence[Entry]) -> Iterator[str]:
    if not entries:
        yield "claimed: nothing, the site has no ledger of private rounds"
    for study, last in {entry.request.study: entry for entry in entries}.items():
        yield f"claimed for {plain(study)}: epsilon {last.epsilon:.3g} at delta {last.delta:g}, {last.unit} privacy"


def _trial(entries: Sequence[Entry]) -> Iterator[str]:
    """A trial of each study's steps, as the ledger has them."""
    for study, last in {entry.request.study: entry for entry in entries}.items():
        charges = merged(entry.charge for entry in entries if entry.request.study == study)
        heard = canary_trial(charges, last.delta, Randomness())
        verdict = "as claimed" if heard.epsilon <= last.epsilon else "ABOVE THE CLAIM: stop training, report it"
        yield (
            f"canaries in the steps of {plain(study)}: {heard.correct} of {heard.guesses} guessed right, epsilon at"
            f" least {heard.epsilon:.3g}, {verdict}"
        )
