"""The hospital's command line: `fedurwkv site ...`."""

from pathlib import Path
from typing import Annotated

import typer

from protocol.settings import parse_assignment, resolve, section

site = typer.Typer(help="A hospital: its data and what their privacy has cost.", no_args_is_help=True)


@site.callback()
def about() -> None:
    """A hospital: its data and what their privacy has cost."""


@site.command()
def check(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site: images/, masks/ and perhaps site.csv.")],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the study, such as model.num_classes=3."),
    ] = None,
) -> None:
    """Read every case once and say what training would refuse; exit code 1 when there is such a fault."""
    # decoding pictures is for this command alone; the help of the others stays fast
    from client.check import check_site
    from client.trainer import SiteData
    from protocol.splits import SPLITS
    from urwkv import Architecture

    table = resolve(dict(parse_assignment(text) for text in sets or []))
    section(table, "data", SiteData)
    section(table, "model", Architecture)
    findings, read = check_site(
        folder,
        seed=int(table["seed"]),
        val=float(table["data.val"]),
        test=float(table["data.test"]),
        in_channels=int(table["model.in_channels"]),
        num_classes=int(table["model.num_classes"]),
    )
    for finding in findings:
        typer.echo(f"{'fault' if finding.fault else 'note '}  {finding.text}")
    faults = any(finding.fault for finding in findings)
    if read:
        origin = "as site.csv gives them" if read.own_split else "dealt by patient"
        counts = ", ".join(f"{len(read.split(word))} {word}" for word in SPLITS)
        typer.echo(f"{read.name}: {len(read.cases)} cases, {counts} ({origin})")
    if faults:
        typer.echo("faults found: correct them before training")
        raise typer.Exit(1)
    typer.echo("no faults: ready for training")


@site.command()
def budget(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site, with its site.yaml.")],
    new: Annotated[
        bool, typer.Option("--open", help="Open a ledger, for patients whose images were never trained on.")
    ] = False,
    last: Annotated[int, typer.Option(min=1, metavar="N", help="Print the last N rounds; sums are over all.")] = 50,
) -> None:
    """Show what the site's patients have spent of their privacy, in which studies, and what is left."""
    from rich.console import Console

    from client.privacy.budget import budget as show

    show(folder, Console(), new=new, last=last)


@site.command()
def audit(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The site.")],
    model: Annotated[Path, typer.Argument(help="The model.safetensors of a study that the site took part in.")],
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting of that study, such as seed=1.")
    ] = None,
    size: Annotated[int | None, typer.Option(metavar="N", help="The side to resize to, if not the model's.")] = None,
) -> None:
    """Attack MODEL with the site's own images, and the noisy step with canaries; compare with what is claimed."""
    from client.privacy.audit import audit as lines

    for line in lines(folder, model, resolve(dict(parse_assignment(text) for text in sets or [])), size):
        typer.echo(line)
