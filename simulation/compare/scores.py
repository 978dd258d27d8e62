"""The best models' test scores, image by image, on every site of their seed; kept in scores.csv beside each run."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from client.data import Images, load_split
from client.device import Place, PlaceSettings, find_place
from client.evaluation import image_scores
from client.inference import Inference
from client.site import Site
from client.trainer import SiteData
from protocol.atomic import write_atomic
from protocol.errors import RunError
from protocol.settings import Table, section
from urwkv import Architecture
from urwkv.weights import load_model

FILE = "scores.csv"
COLUMNS = ("site", "image", "dice", "iou")


@dataclass(frozen=True)
class Score:
    """One test image: its site, its name, and how well it was segmented."""

    site: str
    image: str
    dice: float
    iou: float


class Scorer:
    """Scores models on the test images of one seed's sites, which are read once.

    Args:
        sites: the sites, split as the seed splits them.
        table: complete settings of any run of the seed.
    """

    def __init__(self, sites: Sequence[Site], table: Table) -> None:
        data, architecture = section(table, "data", SiteData), section(table, "model", Architecture)
        self._classes = architecture.num_classes
        self._place: Place = find_place(section(table, "train", PlaceSettings))
        self._images: dict[str, Images] = {
            site.name: load_split(site, "test", data.size, architecture.in_channels, self._classes) for site in sites
        }

    def run(self, run: Path) -> list[Score]:
        """The scores of a finished run's best model; at a site that has left a part of its own, with that part.

        Raises:
            RunError: a site's own tensors do not fit the network.
        """
        if (kept := _read(run / FILE)) is None:
            models = {name: with_own_tensors(run, name) for name in self._images}
            kept = self._score(models, run / FILE)
        return kept

    def ensemble(self, runs: Sequence[Path], path: Path) -> list[Score]:
        """The scores of the mean of several runs' models, kept in `path`."""
        if (kept := _read(path)) is None:
            model = Ensemble([load_model(run / "model.safetensors") for run in runs])
            kept = self._score(dict.fromkeys(self._images, model), path)
        return kept

    def _score(self, models: Mapping[str, nn.Module], path: Path) -> list[Score]:
        scores = []
        for site, images in self._images.items():
            model = models[site].to(self._place.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            found = image_scores(Inference(model, self._place, None), images, self._classes, self._place)
            scores += [Score(site, name, one["dice"], one["iou"]) for name, one in found.items()]
        _write(path, scores)
        return scores


class Ensemble(nn.Module):
    """The mean of several networks' probabilities, as the logits that have it: of one class, or of each class."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, pixels: Tensor) -> Tensor:
        """Pixels (B, C, H, W) to logits (B, num_classes, H, W)."""
        logits = [model(pixels).float() for model in self.models]
        if logits[0].shape[1] == 1:
            return torch.logit(torch.stack([one.sigmoid() for one in logits]).mean(dim=0))
        return torch.stack([one.softmax(dim=1) for one in logits]).mean(dim=0).log()


def with_own_tensors(run: Path, site: str) -> nn.Module:
    """The best global model of a run, with what the site keeps for itself put in where it left such a file.

    Raises:
        RunError: a tensor of the site has another name or shape than in the network.
    """
    model = load_model(run / "model.safetensors")
    own = run / "state" / site / "personal.safetensors"
    if own.is_file():
        state = model.state_dict()
        for name, tensor in load_file(own).items():
            if name not in state or state[name].shape != tensor.shape:
                raise RunError(f"{own}: the tensor {name} does not fit the network in {run / 'model.safetensors'}")
            state[name] = tensor.to(state[name].dtype)
        model.load_state_dict(state)
    return model


def _write(path: Path, scores: Sequence[Score]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows((score.site, score.image, score.dice, score.iou) for score in scores)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, text.getvalue())


def _read(path: Path) -> list[Score] | None:
    if not path.is_file():
        return None
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [Score(row["site"], row["image"], float(row["dice"]), float(row["iou"])) for row in rows]
