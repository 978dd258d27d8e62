"""compare.html: one self-contained page, without scripts and without any other address."""

import json
import shlex
from collections.abc import Mapping

from protocol.settings import defaults
from server.mlflow_uri import redacted
from simulation.compare import results
from simulation.compare.comparison import Comparison
from simulation.report_page import Cell, Html, folded, join, number, page, section, table, tag


def comparison_page(name: str, found: Comparison) -> Html:
    """The page of a comparison in the folder `name`."""
    parts = [
        _head(name, found),
        section("Who reached what", results.standings(found.standings), results.standing_words(found)),
        section(f"Against {found.reference}, image by image", results.differences(found)),
        section("Does every hospital gain over training alone?", results.gains(found)),
        section("Round by round", results.curves(found)),
        section("Models on sites", results.matrices(found.matrices, crossed=found.crossed)),
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
    if found.reference in found.gain_words:
        words.append(tag("p", found.gain_words[found.reference], class_="verdict"))
    return tag("header", join([tag("p", eyebrow, class_="eyebrow"), tag("h1", name), *words]))


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
