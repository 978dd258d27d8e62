"""compare.html: one self-contained page, without scripts and without any other address."""

import json
import shlex
from collections.abc import Mapping, Sequence

from protocol.settings import defaults
from server.mlflow_uri import redacted
from simulation.compare import wording
from simulation.compare.comparison import Comparison
from simulation.compare.drawings import curves_svg, forest_svg
from simulation.compare.findings import Difference, Gain, Matrix, Standing
from simulation.drawing import DARK, LIGHT
from simulation.report_page import (
    Cell,
    Html,
    Meter,
    drawing,
    duration,
    folded,
    join,
    number,
    page,
    section,
    size,
    table,
    tag,
)


def comparison_page(name: str, found: Comparison) -> Html:
    """The page of a comparison in the folder `name`."""
    parts = [
        _head(name, found),
        section("Who reached what", _standings(found.standings), _standing_words(found)),
        section(f"Against {found.reference}, image by image", _differences(found)),
        section("Does every hospital gain over training alone?", _gains(found)),
        section("Round by round", _curves(found)),
        section("Models on sites", _matrices(found.matrices, crossed=found.crossed)),
        section("What these numbers can and cannot carry", _limits(found)),
        section("Failed runs", _failed(found.failed)) if found.failed else Html(""),
        section("Settings", _budget(found), _settings(found)),
        section("Do it again", tag("pre", tag("code", _again(name)))),
        tag("footer", f"FedURWKV · compare.json schema {found.schema} · written from {name}/"),
    ]
    return page(f"{name} · FedURWKV", join(parts))


def _head(name: str, found: Comparison) -> Html:
    seeds = f"{len(found.seeds)} seed" + "s" * (len(found.seeds) > 1)
    eyebrow = f"FedURWKV · a comparison · {len(found.standings)} contestants · {seeds} · on {found.device}"
    words = [tag("p", found.best, class_="verdict")]
    words += [
        tag("p", line, class_="verdict") for name_, line in found.gain_words.items() if name_ == found.reference
    ]
    return tag("header", join([tag("p", eyebrow, class_="eyebrow"), tag("h1", name), *words]))


def _standings(standings: Sequence[Standing]) -> Html:
    heads = ["", "test Dice", "± seeds", "mean of sites", "worst site", "IoU", "sent", "time"]
    rows: list[list[Cell]] = [
        [
            one.name if one.strategy else tag("i", one.name),
            Meter(one.dice),
            number(one.deviation),
            number(one.site_mean),
            number(one.worst_site),
            number(one.iou),
            None if one.bytes is None else size(one.bytes),
            None if one.seconds is None else duration(one.seconds),
        ]
        for one in standings
    ]
    return table(heads, rows)


def _standing_words(found: Comparison) -> Html:
    words = (
        "Test Dice is over all sites' test images of a seed, of the round with the best pooled validation Dice, then"
        " averaged over seeds; ± is the standard deviation over seeds. Mean of sites and worst site are of the sites'"
        " own means. The rows are in the order of their Dice, which is no ranking: see below for what differs. Sent"
        " is what a run moved both ways, time its wall time; the first run of a process also pays for its start."
    )
    baselines = {
        "local": "local: each site's own model, trained on its images alone for as many rounds × epochs, on its own"
        " test images; its time is that of all sites one after the other.",
        "ensemble": "ensemble: the mean of the local models' probabilities.",
        "central": "central: all images pooled in one place, for as many rounds × epochs.",
    }
    present = [text for name, text in baselines.items() if any(one.name == name for one in found.standings)]
    return join([tag("p", words, class_="muted"), *(tag("p", text, class_="muted") for text in present)])


def _differences(found: Comparison) -> Html:
    if not found.differences:
        return tag("p", f"{found.reference} had nobody to be compared with.")
    pictures = [forest_svg(found.differences, found.reference, theme) for theme in (LIGHT, DARK)]
    heads = ["", "what may be said", "difference (95 %)", "p", "p, Holm", "images better", "worse", "same"]
    rows: list[list[Cell]] = [
        [
            one.name,
            one.verdict,
            wording.spoken(one.interval),
            f"{one.p:.2g}",
            f"{one.p_holm:.2g}",
            one.better,
            one.worse,
            one.same,
        ]
        for one in sorted(found.differences, key=_falling)
    ]
    words = (
        f"Each test image's Dice with a contestant minus that with {found.reference}, of models with the same seed."
        f" The interval is a bootstrap of {found.draws:,} samples that draws {_levels(found)}; p is Wilcoxon's signed"
        f" rank test over images, then corrected by Holm for the {len(found.differences)} comparisons of this table."
    )
    return join(
        [
            tag("div", drawing(f"Differences from {found.reference}", *pictures), class_="wide"),
            table(heads, rows, words=2),
            tag("p", words, class_="muted"),
        ]
    )


def _falling(one: Difference) -> tuple[float, str]:
    return -one.interval.estimate, one.name


def _levels(found: Comparison) -> str:
    seeds = "" if len(found.seeds) == 1 else "seeds, then "
    return f"{seeds}sites, then images of each site, with replacement"


def _gains(found: Comparison) -> Html:
    if not found.gains:
        return tag("p", "Not asked: the baseline local was left out.")
    verdicts = {name: [one.verdict for one in gains] for name, gains in found.gains.items()}
    rows: list[list[Cell]] = [
        [name, len(said), said.count("gains"), said.count("loses"), said.count("not shown")]
        for name, said in verdicts.items()
    ]
    parts = [table(["", "hospitals", "shown to gain", "shown to lose", "neither shown"], rows)]
    for name, gains in found.gains.items():
        detail = table(
            ["hospital", "test images", "Dice alone", f"with {name}", "gain (95 %)", "p, Holm", ""],
            [_gain_row(one) for one in gains],
        )
        parts.append(folded(f"{name}, hospital by hospital", detail))
    words = (
        "Against the hospital's own model, on its own test images. Each interval draws the hospital's images"
        + (", and seeds, " if found.crossed and len(found.seeds) > 1 else " ")
        + "with replacement; a gain or a loss is called one where also the signed ranks bear it out, corrected by"
        " Holm for all hospitals of the strategy. A hospital with a handful of test images cannot show either."
    )
    return join([*parts, tag("p", words, class_="muted")])


def _gain_row(one: Gain) -> list[Cell]:
    hospital = one.site if one.seed is None else f"{one.site}, seed {one.seed}"
    alone, together = number(one.alone), number(one.alone + one.interval.estimate)
    return [hospital, one.images, alone, together, wording.spoken(one.interval), f"{one.p_holm:.2g}", one.verdict]


def _curves(found: Comparison) -> Html:
    pictures = [curves_svg(found.curves, found.reference, theme) for theme in (LIGHT, DARK)]
    words = (
        "Pooled validation Dice of the global model"
        + (
            "."
            if len(found.seeds) == 1
            else ": the line is the mean over seeds, the band from the lowest to the highest."
        )
        + (" central is of the same validation images." if "central" in found.curves else "")
    )
    figure = tag("div", drawing("Validation Dice by round", *pictures), class_="wide")
    return join([figure, tag("p", words, class_="muted")])


def _matrices(matrices: Sequence[Matrix], *, crossed: bool) -> Html:
    if not matrices:
        return tag("p", "Not made: it needs the baseline local.")
    words = (
        "Mean test Dice of the model in the row on the site in the column. A site's own model on its own images is in"
        " bold; what it loses in its row is what it does not carry to the others."
    )
    tables = [
        _matrix(one) if number_ == 0 else folded(f"Seed {one.seed}", _matrix(one))
        for number_, one in enumerate(matrices)
    ]
    note = "" if crossed else f" Each seed has sites of its own; the first table is of seed {matrices[0].seed}."
    return join([tag("p", words + note, class_="muted"), *tables])


def _matrix(one: Matrix) -> Html:
    rows: list[list[Cell]] = []
    for model, row in zip(one.models, one.dice, strict=True):
        own = [
            tag("b", number(value)) if model == f"{site} alone" else number(value)
            for site, value in zip(one.sites, row, strict=True)
        ]
        rows.append([model, *own])
    return table(["model", *one.sites], rows)


def _limits(found: Comparison) -> Html:
    return tag("ul", join(tag("li", line) for line in found.limits))


def _failed(failed: Mapping[str, str]) -> Html:
    rows: list[list[Cell]] = [[name, reason] for name, reason in failed.items()]
    intro = tag("p", "A contestant with a failed run is in no table. To try again: fedurwkv compare --resume.")
    return join([intro, table(["run", "why"], rows, words=2)])


def _budget(found: Comparison) -> Html:
    equal = tag(
        "p",
        "All runs of a seed have the same sites, splits, initial weights, rounds, local epochs and batch size; every"
        " optimizer is made anew each round, in the baselines too.",
    )
    if not found.tried:
        words = "Nothing was tuned: all contestants have the settings below"
        return join([equal, tag("p", f"{words}, but for those of their own." if found.own else f"{words}.")])
    count = len({json.dumps(one.trial) for one in found.tried})
    words = (
        f"Each contestant tried {count} settings on seed {found.seeds[0]} and kept the one with the best validation"
        " Dice there, which is flattered by the choice; no test score was read for it."
    )
    rows: list[list[Cell]] = [
        [
            one.contestant,
            ", ".join(f"{key}={value}" for key, value in one.trial.items()),
            number(one.dice),
            "chosen" if found.chosen.get(one.contestant) == one.trial else "",
        ]
        for one in found.tried
    ]
    trials = folded(f"All {len(rows)} trials", table(["", "setting", "validation Dice", ""], rows, words=2))
    return join([equal, tag("p", words), trials])


def _settings(found: Comparison) -> Html:
    usual = defaults()
    rows: list[list[Cell]] = [
        ["all", key, redacted(str(value)), str(usual.get(key, ""))]
        for key, value in found.settings.items()
        if usual.get(key) != value and key != "federation.strategy"
    ]
    rows += [
        [name, key, str(value), str(usual.get(key, ""))]
        for name, own in found.own.items()
        for key, value in own.items()
    ]
    if not rows:
        return tag("p", "All settings are the defaults.")
    return table(["who", "setting", "here", "default"], rows, words=4)


def _again(name: str) -> str:
    return f"fedurwkv compare --resume --out {shlex.quote(name)}"
