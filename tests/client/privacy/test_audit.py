"""`fedurwkv site audit`: attacks beside claims."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from client.commands import site
from client.data import load_split, normalise
from client.privacy.accounting import Charge
from client.privacy.audit import audit
from client.privacy.ledger import Ledger
from client.privacy.randomness import Randomness
from client.site import read_site
from protocol.errors import DataError
from protocol.settings import resolve
from tests.client.models import SMALL, write_model
from tests.client.privacy.test_ledger import ASKED, WIDE
from tests.client.site_folders import make_site
from urwkv import URWKV
from urwkv.losses import segmentation_loss
from urwkv.weights import load_model, save_model

SIDE = 16
TABLE = resolve({"train.device": "cpu", "train.threads": 1, "data.val": 0.25, "data.test": 0.25})


def lines(folder: Path, model: Path) -> str:
    return "\n".join(audit(folder, model, TABLE, SIDE))


def memorised(folder: Path, path: Path) -> Path:
    """A model that has learnt the site's training images by heart."""
    model: URWKV = load_model(write_model(path))
    images = load_split(read_site(folder, seed=0, val=0.25, test=0.25), "train", SIDE, 3, 1)
    pixels, masks = normalise(torch.from_numpy(images.images)), torch.from_numpy(images.masks)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(50):
        optimizer.zero_grad()
        segmentation_loss(model(pixels), masks).backward()
        optimizer.step()
    save_model(path, model, SMALL)
    return path


def test_a_model_that_learnt_by_heart_is_caught_and_a_fresh_one_is_not(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "site", cases=40)
    fresh = lines(folder, write_model(tmp_path / "fresh.safetensors"))
    known = lines(folder, memorised(folder, tmp_path / "known.safetensors"))
    assert "claimed: nothing" in fresh
    assert "20 members and 20 others" in fresh
    auc = [float(re.search(r"AUC (\d\.\d+)", text)[1]) for text in (fresh, known)]
    assert auc[0] < 0.75 < 0.9 < auc[1]
    proven = [float(re.search(r"epsilon at least (\S+)", text)[1]) for text in (fresh, known)]
    assert proven[0] == 0 < proven[1]


def test_claims_and_canaries_of_each_study_come_from_the_ledger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("client.privacy.audit.Randomness", lambda: Randomness(seed=3))
    folder = make_site(tmp_path / "site", cases=16)
    ledger = Ledger(folder / "privacy")
    ledger.open()
    loud = ledger.spend(ASKED, Charge(1.5, 1.0, 4), "patient", 50, WIDE)
    quiet = ledger.spend(replace(ASKED, study="lung"), Charge(30.0, 0.5, 4), "patient", 50, WIDE)
    text = lines(folder, write_model(tmp_path / "model.safetensors"))
    assert f"claimed for breast: epsilon {loud.epsilon:.3g} at delta 1e-05, patient privacy" in text
    assert f"claimed for lung: epsilon {quiet.epsilon:.3g}" in text
    found = re.findall(r"canaries in the steps of (\w+): (\d+) of 200 .* at least (\S+), (.*)", text)
    assert [(study, verdict) for study, _, _, verdict in found] == [("breast", "as claimed"), ("lung", "as claimed")]
    assert int(found[0][1]) > 150
    assert float(found[0][2]) > 1


def test_too_few_images_are_an_error(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "site", cases=5)
    with pytest.raises(DataError, match="an audit needs 4 of each"):
        lines(folder, write_model(tmp_path / "model.safetensors"))


def test_the_command_prints_the_lines(tmp_path: Path) -> None:
    folder = make_site(tmp_path / "site", cases=16)
    model = write_model(tmp_path / "model.safetensors", data_size=str(SIDE))
    done = CliRunner().invoke(site, ["audit", str(folder), str(model), "--set", "train.device=cpu"])
    assert done.exit_code == 0, done.output
    assert "membership by the loss" in done.output
