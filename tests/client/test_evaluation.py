"""The scores of the images and the means that leave a site are of the same predictions."""

from pathlib import Path

import pytest
import torch
from torch import nn

from client.data import load_split
from client.device import Place
from client.evaluation import BATCH, evaluate, image_scores
from client.inference import Inference
from client.site import read_site
from tests.client.models import SMALL
from tests.client.phantoms import small, small_sites
from urwkv import URWKV


class Everywhere(nn.Module):
    """Lesion wherever one looks."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(pixels[:, :1])


CPU = Place(torch.device("cpu"), bf16=False, compile="off")


def test_the_mean_over_images_is_what_a_site_lets_out(tmp_path: Path) -> None:
    table = small(data_images=BATCH + 20, data_test=0.7)  # more than one batch
    (folder, _) = small_sites(tmp_path, table)
    images = load_split(read_site(folder, seed=0, val=0.15, test=0.7), "test", 32, 3, 1)
    assert len(images) > BATCH
    torch.manual_seed(0)
    model = URWKV.from_architecture(SMALL)
    means = evaluate(Inference(model, CPU, None), images, 1, CPU, surfaces=False)
    each = image_scores(Inference(model, CPU, None), images, 1, CPU)
    assert tuple(each) == images.names
    for metric in ("dice", "iou"):
        assert sum(scores[metric] for scores in each.values()) / len(images) == pytest.approx(means[metric])


def test_dice_of_lesion_everywhere_is_known(tmp_path: Path) -> None:
    table = small()
    (folder, _) = small_sites(tmp_path, table)
    images = load_split(read_site(folder, seed=0, val=0.15, test=0.2), "test", 32, 3, 1)
    for name, scores in image_scores(Inference(Everywhere(), CPU, None), images, 1, CPU).items():
        share = float((images.masks[images.names.index(name)] > 0).mean())
        assert scores["dice"] == pytest.approx(2 * share / (1 + share))
        assert scores["iou"] == pytest.approx(share)
