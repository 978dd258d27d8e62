"""`fedurwkv partition`: write the pretend sites of a scenario and say how unlike they are."""

import dataclasses
import json
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from protocol.atomic import write_atomic
from protocol.settings import Table, load_scenario, parse_assignment, resolve, section
from protocol.splits import SPLITS
from simulation.report_page import Cell, Meter, folded, join, page, tag
from simulation.report_page import section as chapter
from simulation.report_page import table as html_table
from simulation.sites import DataSettings, make_sites
from simulation.unlikeness import Unlikeness, describe

HEADS = ("site", "patients", *SPLITS, "lesion", "light", "JS lesion", "JS light")

LEGEND = (
    "Lesion: the median share of a picture that is lesion. Light: mean brightness, 0 to 255. JS: the Jensen-Shannon"
    " distance (base 2) between the site's lesion sizes, or brightness, and those of all sites together: 0 when"
    " alike, 1 when nothing is shared. Chance: what the same pictures, dealt at random to sites of these sizes, would"
    " give."
)


def partition_command(scenario: Path | None, out: Path, sets: list[str]) -> None:
    """Write the sites to `out`, and `partition.json` and `partition.html` beside them; print a table.

    Raises:
        FedURWKVError: a setting, the data or `out` is wrong.
    """
    table = resolve(load_scenario(scenario) if scenario else {}, dict(parse_assignment(text) for text in sets))
    settings = section(table, "data", DataSettings)
    seed = int(table["seed"])
    console = Console()
    with console.status("writing the sites"):
        folders = make_sites(settings, seed, out)
    with console.status("comparing the sites"):
        facts = describe(folders, seed=seed, val=settings.val, test=settings.test)
    out.mkdir(parents=True, exist_ok=True)
    document = {"schema": 1, "seed": seed, "data": dataclasses.asdict(settings)} | dataclasses.asdict(facts)
    write_atomic(out / "partition.json", json.dumps(document, indent=1))
    write_atomic(out / "partition.html", _page(scenario.stem if scenario else "default settings", facts, table))
    _show(facts, console)
    console.print(f"sites in {folders[0].parent}, report {out / 'partition.html'}", highlight=False, soft_wrap=True)


def _rows(facts: Unlikeness) -> list[list[str]]:
    rows = [
        [
            site.name,
            str(site.patients),
            *(str(site.counts[word]) for word in SPLITS),
            f"{site.lesion:.1%}",
            f"{site.brightness[0]:.0f}",
            f"{site.lesion_distance:.3f}",
            f"{site.brightness_distance:.3f}",
        ]
        for site in facts.sites
    ]
    totals = [str(sum(site.counts[word] for site in facts.sites)) for word in SPLITS]
    patients = str(sum(site.patients for site in facts.sites))
    return [*rows, ["all", patients, *totals, "", "", f"{facts.lesion:.3f}", f"{facts.brightness:.3f}"]]


def _verdict(facts: Unlikeness) -> str:
    return (
        f"unlike by {facts.lesion:.2f} in lesion size (chance {facts.lesion_by_chance:.2f}) and by"
        f" {facts.brightness:.2f} in brightness (chance {facts.brightness_by_chance:.2f})"
    )


def _show(facts: Unlikeness, console: Console) -> None:
    # narrow enough for a terminal of 80 columns
    table = RichTable(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in HEADS:
        table.add_column(heading.replace(" ", "\n"), justify="left" if heading == "site" else "right", no_wrap=True)
    *rows, total = _rows(facts)
    for row in rows:
        table.add_row(*row)
    table.add_section()
    table.add_row(*total, style="bold")
    console.print(table)
    console.print(_verdict(facts), highlight=False, soft_wrap=True)


def _page(title: str, facts: Unlikeness, table: Table) -> str:
    lows = [0.0, *facts.edges[:-1]]
    bins = [f"{low:.1%} to {high:.1%}" for low, high in zip(lows, facts.edges, strict=True)]
    sizes: list[list[Cell]] = [[site.name, *(Meter(share) for share in site.lesion_bins)] for site in facts.sites]
    words = [(key, str(value)) for key, value in table.items() if key == "seed" or key.startswith("data.")]
    return page(
        f"Sites of {title}",
        join(
            [
                tag("h1", f"Sites of {title}"),
                tag("p", _verdict(facts), class_="verdict"),
                chapter("Sites", html_table(HEADS, _rows(facts), strong=(len(facts.sites),)), tag("p", LEGEND)),
                chapter(
                    "Lesion sizes",
                    tag("p", "Share of a site's pictures by the share of the picture that is lesion."),
                    html_table(("site", *bins), sizes),
                ),
                folded("settings", html_table(("setting", "value"), words, words=2)),
            ]
        ),
    )
