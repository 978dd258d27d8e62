"""Hostile hospitals in a simulation: some of the sites poison their data, or send what they did not train.

    label_flip    the attacker's masks are inverted: what was lesion is background, and the other way round
    sign_flip     x - D    in place of  y = x + D,   D = y - x the update that the site has trained
    scaling       x + c D,   c = attack.scale; a negative c turns the update round as well
    nan           every trainable value is not a number
    free_rider    x itself: no training at all

Statistics and counters of normalisation layers are sent as they were trained. Attackers tell the truth in all
else, such as their validation scores; with flipped labels these are scores on flipped masks. Who attacks follows
from the study's seed and the sites' names. Label flips, sign flips and scaled updates: Blanchard et al. 2017,
https://arxiv.org/abs/1703.02757, and Bagdasaryan et al. 2020, https://arxiv.org/abs/1807.00459; free riders: Fraboni
et al. 2021, https://arxiv.org/abs/2006.11901.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from flwr.app import Context, Message

from client.app import simulated_site
from client.images import Pixels, read_mask
from protocol.errors import SettingsError
from protocol.messages import TRAIN, read_reply, read_task, reply_content
from protocol.packing import Schema
from protocol.seeds import seed_of
from protocol.settings import Table, require, section
from server.app import initial_model
from simulation.local_grid import ClientApp
from simulation.manifest import write_whole
from simulation.records import save_png

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class AttackSettings:
    """The `attack.*` settings: what hostile sites do, which share of the sites is hostile, the factor of scaling."""

    kind: Literal["none", "label_flip", "sign_flip", "scaling", "nan", "free_rider"]
    share: float
    scale: float

    def __post_init__(self) -> None:
        require(0 <= self.share <= 1, "share", self.share, "between 0 and 1")
        if (self.kind == "none") != (self.share == 0):
            raise ValueError(
                f"share = {self.share!r} does not go with attack.kind = {self.kind!r}: set both, or neither"
            )

    @property
    def on_data(self) -> bool:
        """Whether it is a site's data that is poisoned."""
        return self.kind == "label_flip"

    @property
    def on_replies(self) -> bool:
        """Whether it is what a site sends that is hostile, not its data."""
        return self.kind != "none" and not self.on_data


def check_attack(table: Table, engine: str) -> AttackSettings:
    """The attack that the table describes.

    Raises:
        SettingsError: a setting is wrong, or the engine cannot run the attack.
    """
    attack = section(table, "attack", AttackSettings)
    if attack.on_replies and engine != "local":
        raise SettingsError(
            f"attack.kind = {attack.kind!r} needs --engine local, where a simulation stands between a site and the"
            " server; under ray only label_flip attacks"
        )
    return attack


def attackers(attack: AttackSettings, names: Sequence[str], seed: int) -> list[str]:
    """The hostile sites, sorted: `attack.share` of them, rounded, drawn by the seed and their names.

    Raises:
        SettingsError: the share is so small that nobody attacks.
    """
    count = round(attack.share * len(names))
    if attack.share and not count:
        raise SettingsError(
            f"attack.share = {attack.share} of {len(names)} sites is nobody: raise it to {1 / len(names):.2g} or more"
        )
    return sorted(sorted(names, key=lambda name: (seed_of(seed, "attack", name), name))[:count])


def with_attack(app: ClientApp, table: Table) -> ClientApp:
    """The client app as it is, but for what hostile sites send after training; `table` is complete, `run.*` too."""
    attack = section(table, "attack", AttackSettings)
    if not attack.on_replies:
        return app
    names = [simulated_site(table, index).name for index in range(int(table["federation.sites"]))]
    hostile = attackers(attack, names, int(table["seed"]))
    schema = Schema.of((name, a.shape, a.dtype) for name, a in initial_model(table).items())

    def attacked(message: Message, context: Context) -> Message:
        answer = app(message, context)
        name = names[int(context.node_config["partition-id"])]
        if name not in hostile or message.metadata.message_type != TRAIN or answer.has_error():
            return answer
        reply = read_reply(answer.content)
        x = schema.unpack(read_task(TRAIN, message.content, table).model)
        sent = poisoned(attack, x, schema.unpack(reply.model), schema)
        return Message(reply_content(dataclasses.replace(reply, model=schema.pack(sent))), reply_to=message)

    return attacked


def poisoned(attack: AttackSettings, x: Arrays, y: Arrays, schema: Schema) -> Arrays:
    """What a hostile site sends in place of y, the model that it trained from x."""
    factor = {"sign_flip": -1.0, "scaling": attack.scale, "nan": np.nan, "free_rider": 0.0}[attack.kind]
    trained = [tensor.name for tensor in schema.tensors if tensor.group == "parameter"]
    return y | {name: (x[name] + factor * (y[name] - x[name])).astype(y[name].dtype) for name in trained}


def flip_labels(sites: Sequence[Path], names: Sequence[str], table: Table, out: Path) -> list[Path]:
    """The site folders as `out` holds them: links to the honest ones, and of `names` copies with flipped masks.

    Args:
        out: a folder that appears whole or not at all, and is used again.
    """

    classes = int(table["model.num_classes"])

    def write(folder: Path) -> None:
        for site in sites:
            place = folder / site.name
            if site.name not in names:
                place.symlink_to(site.resolve(), target_is_directory=True)
                continue
            (place / "masks").mkdir(parents=True)
            (place / "images").symlink_to((site / "images").resolve(), target_is_directory=True)
            if (site / "site.csv").is_file():
                (place / "site.csv").write_bytes((site / "site.csv").read_bytes())
            for mask in sorted((site / "masks").glob("*.png")):
                save_png(flipped(read_mask(mask, classes), classes), place / "masks" / mask.name)

    if not out.exists():
        write_whole(out, write, {"attackers": list(names)})
    return [out / site.name for site in sites]


def flipped(labels: Pixels, classes: int) -> Pixels:
    """Labels (H, W) the other way round: c becomes K - c, K the highest (Fang et al. 2020, section 5.1).

    https://arxiv.org/abs/1911.11815
    """
    return np.asarray(max(1, classes - 1) - labels, np.uint8)
