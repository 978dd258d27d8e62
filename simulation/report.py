"""report.html: one self-contained page about a finished run, without scripts and without any other address."""

import io
import json
import shlex
from pathlib import Path
from typing import Any

from PIL import Image

from protocol.atomic import write_atomic
from protocol.errors import RunError
from protocol.settings import OVERRIDES, Table, defaults, load_scenario
from protocol.splits import SPLITS
from server.mlflow_uri import redacted
from simulation.curves import DARK, LIGHT, curve_svgs, write_curves
from simulation.report_page import (
    Cell,
    Html,
    Meter,
    data_uri,
    drawing,
    duration,
    folded,
    join,
    number,
    page,
    section,
    size,
    stack,
    table,
    tag,
    text,
)

Result = dict[str, Any]

PHASES = ("train", "evaluate", "aggregate", "transfer", "other")
HEADINGS = {"worst": "Worst cases", "best": "Best cases", "typical": "A typical case of each other site"}


def write_report(run: Path) -> Path:
    """Write report.html and curves.png into the folder of a finished run.

    Reads result.json, settings.yaml and, where it is, overlays/; what is not there is said to be missing.

    Returns:
        The path of report.html.

    Raises:
        RunError: the run has not finished: it holds no result.json or no settings.yaml.
    """
    for name in ("result.json", "settings.yaml"):
        if not (run / name).is_file():
            raise RunError(f"{run} holds no {name}: a report needs a run that has finished")
    result: Result = json.loads((run / "result.json").read_text())
    settings = load_scenario(run / "settings.yaml")
    write_curves(result["rounds"], run / "curves.png")
    name = run.resolve().name
    parts = [
        _head(name, result, settings),
        section("Round by round", _curves(result), _rounds(result)),
        section(
            "Sites", _sites(result), tag("p", _explanation(settings), class_="muted"), _privacy(result, settings)
        ),
        section("Test cases", _cases(run)),
        section("What went wrong", _failures(result)),
        section("Where the time went", _time(result)),
        section("Settings", _settings(settings)),
        section("Do it again", _again(run, result)),
        tag("footer", f"FedURWKV · result.json schema {result['schema']} · written from {name}/"),
    ]
    write_atomic(run / "report.html", page(f"{name} · FedURWKV", join(parts)))
    return run / "report.html"


def _head(name: str, result: Result, settings: Table) -> Html:
    final, rounds, seconds = result["final"], result["rounds"], result["seconds"]["total"]
    worst = min(final["sites"], key=lambda site: final["sites"][site]["dice"], default="no site told it")
    sites = "one site" if len(result["sites"]) == 1 else f"{len(result['sites'])} sites"
    verdict = (
        f"{sites.capitalize()} trained one network with {result['strategy']}. On their test images it reaches a"
        f" Dice of {number(final['global_dice'])}; {worst} has the lowest, {number(final['worst_site_dice'])}."
        f" Round {final['best_round']} of {len(rounds)} was the best."
    )
    sent = sum(record["bytes_down"] + record["bytes_up"] for record in rounds)
    cards = [
        _card("Global test Dice", number(final["global_dice"]), "all sites' images pooled", "card main"),
        _card("Worst site", number(final["worst_site_dice"]), worst),
        _card("IoU", number(final["global_iou"]), "intersection over union"),
        _card("HD95", number(final["hd95"], 1), f"pixels of {settings['data.size']}"),
        _card("NSD", number(final["nsd"]), "normalised surface Dice"),
        _card("Rounds", str(len(rounds)), f"best: {final['best_round']}"),
        _card("Time", duration(seconds), f"on {result['device']}"),
        _card("Sent", size(sent), f"{size(sent / max(1, len(rounds)))} a round"),
    ]
    eyebrow = f"FedURWKV · a federation's report · engine {result['engine']} · seed {result['seed']}"
    return tag(
        "header",
        join(
            [
                tag("p", eyebrow, class_="eyebrow"),
                tag("h1", name),
                tag("p", verdict, class_="verdict"),
                tag("dl", join(cards), class_="cards"),
            ]
        ),
    )


def _card(title: str, value: str, note: str = "", class_: str = "card") -> Html:
    words = join([value, tag("small", note)]) if note else value
    return tag("div", join([tag("dt", title), tag("dd", words)]), class_=class_)


def _curves(result: Result) -> Html:
    light, dark = curve_svgs(result["rounds"], LIGHT), curve_svgs(result["rounds"], DARK)
    pictures = [drawing(f"{title}, by round", light[title], dark[title]) for title in light]
    return tag("div", join(pictures), class_="curves")


def _rounds(result: Result) -> Html:
    heads = ["round", "global Dice", "worst site", "training loss", "sites", "left out", "time", "down", "up"]
    spent = [[site["epsilon"] for site in record["sites"].values()] for record in result["rounds"]]
    private = any(epsilon is not None for of_round in spent for epsilon in of_round)
    if private:
        heads.append("epsilon")
    rows: list[list[Cell]] = [
        [
            str(record["round"]),
            number(record["global_dice"]),
            number(record["worst_site_dice"]),
            number(record["train_loss"]),
            len(record["sites"]),
            len(record["failed"]),
            duration(record["seconds"]),
            size(record["bytes_down"]),
            size(record["bytes_up"]),
        ]
        for record in result["rounds"]
    ]
    if private:
        for row, of_round in zip(rows, spent, strict=True):
            row.append(number(max((epsilon for epsilon in of_round if epsilon is not None), default=None)))
    best = [
        index for index, record in enumerate(result["rounds"]) if record["round"] == result["final"]["best_round"]
    ]
    return folded(f"All {len(rows)} rounds", table(heads, rows, words=0, strong=best))


def _sites(result: Result) -> Html:
    final = result["final"]
    heads = ["site", *SPLITS, "test Dice", "IoU", "HD95", "NSD"]
    rows: list[list[Cell]] = []
    for site in result["sites"]:
        rows.append(
            [site["name"], *(site[split] for split in SPLITS), *_scores(final["sites"].get(site["name"], {}))]
        )
    pooled = {"dice": final["global_dice"], "iou": final["global_iou"], "hd95": final["hd95"], "nsd": final["nsd"]}
    counts = [sum(site[split] for site in result["sites"]) for split in SPLITS]
    rows.append(["all images", *counts, *_scores(pooled)])
    return table(heads, rows, strong=[len(rows) - 1])


def _scores(scores: dict[str, float | None]) -> list[Meter | str]:
    return [
        Meter(scores.get("dice")),
        number(scores.get("iou")),
        number(scores.get("hd95"), 1),
        number(scores.get("nsd")),
    ]


def _explanation(settings: Table) -> str:
    side = settings["data.size"]
    return (
        "Scores are per image, averaged over a site's test images, of the model with the best pooled validation Dice."
        f" HD95 is in pixels at {side} × {side}; NSD is the share of the two outlines that lie within the tolerance."
        " An empty prediction on an empty mask scores 1; a false positive there scores 0."
    )


def _privacy(result: Result, settings: Table) -> Html:
    """What the study has cost each site's patients, where noise was asked for."""
    if not settings["privacy.epsilon"]:
        return Html("")
    spent: dict[str, float | None] = {site["name"]: None for site in result["sites"]}
    for record in result["rounds"]:
        told = {name: site["epsilon"] for name, site in record["sites"].items() if site["epsilon"] is not None}
        spent |= told
    words = (
        f"Trained with differential privacy: epsilon {settings['privacy.epsilon']:g} at delta"
        f" {settings['privacy.delta']:g} is the most that the study may cost a {settings['privacy.unit']}; the table"
        " says what it has. No noise covers scores and losses, and in a simulation the noise follows from the seed."
    )
    rows: list[list[Cell]] = [[name, number(epsilon)] for name, epsilon in spent.items()]
    return join([tag("h3", "Privacy"), table(["site", "epsilon spent"], rows), tag("p", words, class_="muted")])


def _cases(run: Path) -> Html:
    index = run / "overlays" / "overlays.json"
    overlays = json.loads(index.read_text()) if index.is_file() else []
    if not overlays:
        return tag(
            "p",
            "This run left no overlays: they are drawn in a simulation, of public or generated pictures unless"
            " report.overlays is all.",
            class_="muted",
        )
    parts = []
    for kind, heading in HEADINGS.items():
        figures = [_case(run, overlay) for overlay in overlays if overlay["kind"] == kind]
        if figures:
            parts += [tag("h3", heading), tag("div", join(figures), class_="cases")]
    return join(parts)


def _case(run: Path, overlay: dict[str, Any]) -> Html:
    words = f"{overlay['site']}, case {overlay['case']}: truth and prediction, Dice {number(overlay['dice'])}"
    content = io.BytesIO()
    with Image.open(run / "overlays" / overlay["file"]) as picture:
        picture.convert("RGB").save(content, "JPEG", quality=88, subsampling=0)
    picture_tag = Html(f'<img alt="{text(words)}" src="{data_uri(content.getvalue(), "image/jpeg")}">')
    caption = tag("figcaption", join([tag("b", overlay["site"]), f" {overlay['case']}"]))
    return tag("figure", join([picture_tag, caption]))


def _failures(result: Result) -> Html:
    return join([_attack(result), _left_out(result)])


def _attack(result: Result) -> Html:
    attack = result.get("attack")
    if attack is None:
        return Html("")
    who = ", ".join(attack["sites"])
    scale = f" by {attack['scale']:g}" if attack["kind"] == "scaling" else ""
    return tag(
        "p", f"On purpose: {who} attacked in every round ({attack['kind']}{scale}). Other scores include them."
    )


def _left_out(result: Result) -> Html:
    rows: list[list[Cell]] = [
        [site, reason, record["round"]] for record in result["rounds"] for site, reason in record["failed"].items()
    ]
    if not rows:
        return tag("p", "Nothing: every site that was asked gave a valid reply in every round.")
    intro = tag("p", "These sites were left out of these rounds; the others' updates made the model.", class_="muted")
    return join([intro, table(["site", "reason", "round"], rows, words=2)])


def _time(result: Result) -> Html:
    seconds = result["seconds"]
    words = f"{duration(seconds['total'])} in all, after the sites were made."
    return join([stack({phase: seconds[phase] for phase in PHASES}, "s"), tag("p", words, class_="muted")])


def _settings(settings: Table) -> Html:
    usual = defaults()
    shown = {
        key: redacted(str(value))
        for key, value in settings.items()
        if key != OVERRIDES and not key.startswith("run.")
    }
    rows = [
        [key, value, str(usual.get(key, "")) or "(empty)"]
        for key, value in shown.items()
        if usual.get(key) != settings[key]
    ]
    if rows:
        differences = table(["setting", "this run", "default"], rows, words=3)
    else:
        differences = tag("p", "All settings are the defaults.")
    everything = table(["setting", "value"], list(shown.items()), words=2)
    return join([differences, folded(f"All {len(shown)} settings", everything)])


def _again(run: Path, result: Result) -> Html:
    if result["engine"] == "deployment":
        return tag("p", "settings.yaml beside this page is the complete scenario of the study.")
    name = run.resolve().name
    words = "settings.yaml is complete, defaults too. From the folder in which this run's folder lies:"
    scenario, out = shlex.quote(f"{name}/settings.yaml"), shlex.quote(f"{name}-again")
    command = f"fedurwkv simulate {scenario} --engine {result['engine']} --out {out}"
    return join([tag("p", words), tag("pre", tag("code", command))])
