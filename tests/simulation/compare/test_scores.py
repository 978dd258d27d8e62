"""Scores image by image: of ensembles, of models with a site's own part, and kept as they were."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from client.site import read_site
from protocol.errors import RunError
from simulation.compare.scores import Ensemble, Scorer, with_own_tensors
from tests.client.models import SMALL, write_model
from tests.client.phantoms import small, small_sites
from urwkv import Architecture
from urwkv.predict import predict_labels


class Says(nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.logits[None, :, None, None].expand(len(pixels), -1, *pixels.shape[-2:])


def test_probabilities_are_averaged_not_logits() -> None:
    pixels = torch.zeros(1, 3, 2, 2)
    strong, weak, weaker = (float(torch.logit(torch.tensor(p))) for p in (0.99, 0.3, 0.1))
    mean = Ensemble([Says(strong), Says(weak), Says(weaker)])(pixels)
    assert torch.sigmoid(mean).flatten().tolist() == pytest.approx([1.39 / 3] * 4)
    assert strong + weak + weaker > 0  # the mean of the logits would say lesion
    assert not predict_labels(mean).any()


def test_of_classes_the_mean_is_over_their_probabilities() -> None:
    one, two = torch.tensor([0.6, 0.3, 0.1]).log(), torch.tensor([0.1, 0.8, 0.1]).log()
    mean = Ensemble([Says(*one.tolist()), Says(*two.tolist())])(torch.zeros(1, 3, 1, 1))
    assert mean.exp().flatten().tolist() == pytest.approx([0.35, 0.55, 0.1])


def test_a_sites_own_tensors_replace_the_global_ones(tmp_path: Path) -> None:
    write_model(tmp_path / "model.safetensors")
    place = tmp_path / "state" / "oslo"
    place.mkdir(parents=True)
    save_file({"head.bias": torch.tensor([7.0])}, place / "personal.safetensors")
    own, other = with_own_tensors(tmp_path, "oslo").state_dict(), with_own_tensors(tmp_path, "cairo").state_dict()
    assert own["head.bias"].item() == 7.0
    assert other["head.bias"].item() != 7.0
    assert torch.equal(own["head.weight"], other["head.weight"])
    save_file({"hand.bias": torch.tensor([7.0])}, place / "personal.safetensors")
    with pytest.raises(RunError, match=r"the tensor hand\.bias does not fit"):
        with_own_tensors(tmp_path, "oslo")


def test_scores_are_kept_and_read_again(tmp_path: Path) -> None:
    table = small()
    sites = [read_site(folder, seed=0, val=0.15, test=0.2) for folder in small_sites(tmp_path, table)]
    run = tmp_path / "run"
    run.mkdir()
    write_model(run / "model.safetensors", Architecture("small", norm="group"), bias=5.0)  # lesion everywhere
    scorer = Scorer(sites, table)
    found = scorer.run(run)
    assert {score.site for score in found} == {site.name for site in sites}
    assert len(found) == sum(len(site.split("test")) for site in sites)
    assert all(score.dice == pytest.approx(2 * score.iou / (1 + score.iou)) for score in found)
    (run / "model.safetensors").unlink()
    assert scorer.run(run) == found
    write_model(run / "model.safetensors", SMALL, bias=5.0)
    assert scorer.ensemble([run, run], tmp_path / "ensemble" / "seed0.csv") == found
