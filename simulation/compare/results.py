"""The results on the page of a comparison: tables, pictures, and what they mean."""

from collections.abc import Sequence

from simulation.compare import wording
from simulation.compare.comparison import Comparison
from simulation.compare.drawings import curves_svg, forest_svg
from simulation.compare.findings import Difference, Gain, Matrix, Standing
from simulation.drawing import DARK, LIGHT
from simulation.report_page import Cell, Html, Meter, drawing, duration, folded, join, number, size, table, tag


def standings(standings: Sequence[Standing]) -> Html:
    """A row a contestant, the highest test Dice first."""
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


def standing_words(found: Comparison) -> Html:
    """What the columns are, and who the baselines are."""
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


def differences(found: Comparison) -> Html:
    """Everyone against the reference: forest, table, and how both came to be."""
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


def gains(found: Comparison) -> Html:
    """Each hospital with a strategy against its own model alone."""
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
        + ("" if found.crossed else " Each seed makes hospitals of its own, so each is named with its seed.")
    )
    return join([*parts, tag("p", words, class_="muted")])


def _gain_row(one: Gain) -> list[Cell]:
    hospital = one.site if one.seed is None else f"{one.site}, seed {one.seed}"
    alone, together = number(one.alone), number(one.alone + one.interval.estimate)
    return [hospital, one.images, alone, together, wording.spoken(one.interval), f"{one.p_holm:.2g}", one.verdict]


def curves(found: Comparison) -> Html:
    """Validation Dice by round."""
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


def matrices(matrices: Sequence[Matrix], *, crossed: bool) -> Html:
    """Models on sites, a table a seed where each seed has its own."""
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
