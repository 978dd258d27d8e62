"""The report's page: its style and the few pieces of HTML that it is made of. Every text is escaped here."""

import base64
import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STYLE = """
:root { color-scheme: light dark; --paper: #ffffff; --card: #f6f8fa; --ink: #1c2430; --muted: #5b6675;
  --line: #dfe4ea; --accent: #0072b2; --bar: #cfe3f1; --warn: #b04300; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f141b; --card: #171e28; --ink: #e6ebf2;
  --muted: #9aa7b8; --line: #303a48; --accent: #6cb8ea; --bar: #1d435c; --warn: #f0925a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
.eyebrow { margin: 0; color: var(--muted); font-size: .85rem; letter-spacing: .04em; }
h1 { margin: .1rem 0 .6rem; font-size: clamp(1.7rem, 4vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em;
  overflow-wrap: anywhere; }
h2 { margin: 3rem 0 .9rem; font-size: 1.25rem; letter-spacing: -.01em; }
h3 { margin: 1.6rem 0 .6rem; font-size: 1rem; }
p { margin: .5rem 0; max-width: 75ch; }
.verdict { font-size: 1.15rem; max-width: 62ch; }
.muted { color: var(--muted); }
.cards { display: grid; grid-template-columns: repeat(4, 1fr); gap: .75rem; margin: 1.6rem 0 0; }
@media (max-width: 640px) { .cards { grid-template-columns: repeat(2, 1fr); } }
.card { padding: .85rem 1rem; background: var(--card); border-radius: 10px; }
.card dt { color: var(--muted); font-size: .8rem; }
.card dd { margin: 0; font-size: 1.55rem; font-weight: 650; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.card dd small { display: block; color: var(--muted); font-size: .8rem; font-weight: 400; letter-spacing: 0; }
.card.main dd { color: var(--accent); }
.curves { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: 1.2rem; }
.curves img { display: block; width: 100%; height: auto; }
.wide img { display: block; width: 100%; max-width: 52rem; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .45rem .7rem; border-bottom: 1px solid var(--line); text-align: right; vertical-align: top; }
th { color: var(--muted); font-weight: 500; font-size: .82rem; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
td { white-space: nowrap; }
th.word, td.word { text-align: left; white-space: normal; overflow-wrap: break-word; }
td.word + td.word { min-width: 13rem; }
tr.strong td { font-weight: 650; }
tbody tr:last-child td { border-bottom: 0; }
td.meter { min-width: 12rem; }
td.meter span { display: inline-block; width: 3.2rem; }
td.meter i { display: inline-block; vertical-align: middle; width: calc(100% - 3.2rem); height: .55rem;
  border-radius: 3px; background: linear-gradient(90deg, var(--accent) var(--part), var(--line) 0); }
.stack { display: flex; height: 1.4rem; border-radius: 6px; overflow: hidden; gap: 2px; }
.stack span { display: block; min-width: 2px; }
.legend { display: flex; flex-wrap: wrap; gap: .3rem 1.4rem; margin: .7rem 0 0; padding: 0; list-style: none;
  font-size: .9rem; }
.legend i { display: inline-block; width: .7rem; height: .7rem; margin-right: .45rem; border-radius: 3px; }
.cases { display: grid; grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); gap: 1rem; }
figure { margin: 0; break-inside: avoid; }
.cases img { display: block; width: 100%; height: auto; border-radius: 10px; }
figcaption { margin-top: .35rem; color: var(--muted); font-size: .85rem; overflow-wrap: anywhere; }
figcaption b { color: var(--ink); font-weight: 600; }
details { margin: .8rem 0; border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); }
summary { padding: .6rem 0; cursor: pointer; color: var(--accent); }
pre { overflow-x: auto; padding: .9rem 1.1rem; background: var(--card); border-radius: 10px; font-size: .87rem; }
code { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace; font-size: .92em; }
footer { margin-top: 3.5rem; padding-top: 1rem; border-top: 1px solid var(--line); color: var(--muted);
  font-size: .85rem; }
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  .curves { grid-template-columns: repeat(3, 1fr); }
  .cases { grid-template-columns: repeat(4, 1fr); }
  th, td { padding-block: .25rem; }
  h2 { break-after: avoid; }
  tr, .card { break-inside: avoid; }
  * { print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
"""

SLICES = ["#0072B2", "#56B4E9", "#009E73", "#E69F00", "#8A94A3"]
NONE = "–"


class Html(str):
    """Text that is HTML already; any other str is escaped where it is put in."""


@dataclass(frozen=True)
class Meter:
    """A number from 0 to 1 in a table, with a bar of that length before it; None is shown as a dash."""

    value: float | None


Cell = Html | str | int | float | Meter | None


def text(value: object) -> Html:
    """Escaped, unless it is HTML already."""
    return value if isinstance(value, Html) else Html(html.escape(str(value)))


def tag(name: str, content: object, **attributes: str) -> Html:
    """One element; `class_` is the attribute class."""
    words = "".join(f' {key.rstrip("_")}="{html.escape(value)}"' for key, value in attributes.items())
    return Html(f"<{name}{words}>{text(content)}</{name}>")


def join(parts: Iterable[object]) -> Html:
    """Pieces one after the other."""
    return Html("".join(text(part) for part in parts))


def section(title: str, *parts: object) -> Html:
    """A heading and what stands below it."""
    return tag("section", join([tag("h2", title), *parts]))


def number(value: float | None, digits: int = 3) -> str:
    """A number with that many decimals; a dash for None."""
    return NONE if value is None else f"{value:,.{digits}f}"


def size(count: float) -> str:
    """Bytes in the unit a person would use."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} GB"


def duration(seconds: float) -> str:
    """Seconds as h, min and s."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def table(heads: Sequence[str], rows: Iterable[Sequence[Cell]], words: int = 1, strong: Sequence[int] = ()) -> Html:
    """A table; its first `words` columns are text, the others numbers, the rows `strong` are bold."""
    classes = [{"class_": "word"} if column < words else {} for column in range(len(heads))]
    head = join(tag("th", title, scope="col", **classes[column]) for column, title in enumerate(heads))
    body = []
    for index, row in enumerate(rows):
        cells = join(_cell(value, classes[column]) for column, value in enumerate(row))
        body.append(tag("tr", cells, **({"class_": "strong"} if index in strong else {})))
    return tag("div", tag("table", join([tag("thead", tag("tr", head)), tag("tbody", join(body))])), class_="scroll")


def _cell(value: Cell, attributes: dict[str, str]) -> Html:
    if isinstance(value, Meter):
        bar = tag("i", "", style=f"--part: {100 * (value.value or 0.0):.1f}%")
        return tag("td", join([bar, tag("span", number(value.value))]), class_="meter")
    return tag("td", NONE if value is None else value, **attributes)


def folded(title: str, content: object) -> Html:
    """What opens at a click."""
    return tag("details", join([tag("summary", title), content]))


def stack(parts: dict[str, float], unit: str) -> Html:
    """One bar of coloured shares and its legend."""
    total = sum(parts.values()) or 1.0
    slices = dict(zip(parts, SLICES, strict=False))
    bar = join(
        tag("span", "", style=f"width: {100 * value / total:.2f}%; background: {slices[name]}")
        for name, value in parts.items()
    )
    dots = {name: tag("i", "", style=f"background: {slices[name]}") for name in parts}
    legend = join(tag("li", join([dots[name], f"{name} {value:,.1f} {unit}"])) for name, value in parts.items())
    return join([tag("div", bar, class_="stack"), tag("ul", legend, class_="legend")])


def data_uri(content: bytes, kind: str) -> str:
    """The bytes as an address that needs no file."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def drawing(alt: str, light: str, dark: str) -> Html:
    """An SVG for a light page, which is another one on a dark page."""
    day, night = (data_uri(svg.encode(), "image/svg+xml") for svg in (light, dark))
    source = f'<source media="(prefers-color-scheme: dark)" srcset="{night}">'
    return Html(f'<picture>{source}<img alt="{text(alt)}" src="{day}"></picture>')


def page(title: str, content: object) -> Html:
    """The whole file."""
    head = join(
        [
            Html('<meta charset="utf-8">'),
            Html('<meta name="viewport" content="width=device-width">'),
            tag("title", title),
        ]
    )
    style = Html(f"<style>{STYLE}</style>")
    return Html(
        f'<!doctype html>\n<html lang="en"><head>{head}{style}</head><body>{tag("main", content)}</body></html>\n'
    )
