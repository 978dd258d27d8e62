"""The hospital's command line: `fedurwkv site ...`."""

from pathlib import Path
from typing import Annotated

import typer

from protocol.settings import parse_assignment, resolve, section

site = typer.Typer(
    help="A hospital: its data, its key, its trainer, what privacy has cost.",
    no_args_is_help=True,
    suggest_commands=False,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The hospital's folder, with site.yaml.")]


@site.callback()
def about() -> None:
    """A hospital: its data, its key, its trainer, what privacy has cost."""


@site.command()
def init(folder: Folder) -> None:
    """Write a commented site.yaml: who this hospital is, where its data lies, what it allows."""
    from client.hospital import write_template

    path = write_template(folder)
    typer.echo(f"made {path}: read and edit it; then: fedurwkv site keygen {folder}")


@site.command()
def keygen(folder: Folder) -> None:
    """Make this hospital's key pair; the private key stays here, the public key goes to the study's lead."""
    from client.hospital import read_hospital
    from protocol.keys import make_key_pair

    hospital = read_hospital(folder)
    made = make_key_pair(hospital.key, hospital.public_key, hospital.name)
    typer.echo(f"made {hospital.key}, which nobody else gets, and {hospital.public_key} for the study's lead")
    typer.echo(f"fingerprint, to read out when asked: {made.fingerprint}")


@site.command()
def start(
    folder: Folder,
    only: Annotated[
        str, typer.Option(help="trainer or connection, where each has a place of its own, like a container.")
    ] = "",
) -> None:
    """Run the trainer and the connection, Flower's SuperNode, in the foreground until SIGTERM or Ctrl-C."""
    import signal
    import sys

    from client.hospital import read_hospital
    from client.supervisor import PARTS, Supervisor
    from protocol.settings import choose

    part = choose("--only", only, list(PARTS)) if only else ""
    supervisor = Supervisor(read_hospital(folder), lambda line: print(line, file=sys.stderr, flush=True), part)
    for sign in (signal.SIGTERM, signal.SIGINT):
        signal.signal(sign, lambda *_: supervisor.stop())
    supervisor.run()


@site.command()
def status(folder: Folder) -> None:
    """Whether the hospital's trainer and SuperNode run, and what they did last; exit code 1 when they do not."""
    from client.hospital import read_hospital
    from client.site_status import running
    from client.site_status import status as lines

    hospital = read_hospital(folder)
    for line in lines(hospital):
        typer.echo(line)
    if not running(hospital):
        raise typer.Exit(1)


@site.command()
def check(
    folder: Annotated[
        Path,
        typer.Argument(metavar="DIR", help="A hospital, with site.yaml; or just its data."),
    ],
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the study, such as model.num_classes=3."),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask the coordinator.")] = False,
) -> None:
    """Read every case once and say what training would refuse; exit code 1 when there is such a fault.

    A folder with site.yaml is a hospital: disk, device with a dry training step, key, clock and the way to the
    coordinator are checked too.
    """
    # decoding pictures is for this command alone; the help of the others stays fast
    from client.check import check_site
    from client.hospital import FILE, read_hospital
    from client.trainer import SiteData
    from protocol.splits import SPLITS
    from urwkv import Architecture

    table = resolve(dict(parse_assignment(text) for text in sets or []))
    section(table, "data", SiteData)
    section(table, "model", Architecture)
    hospital = read_hospital(folder) if (folder / FILE).is_file() else None
    findings, read = check_site(
        hospital.data if hospital else folder,
        seed=int(table["seed"]),
        val=float(table["data.val"]),
        test=float(table["data.test"]),
        in_channels=int(table["model.in_channels"]),
        num_classes=int(table["model.num_classes"]),
    )
    if hospital:
        from client.doctor import examine

        findings += examine(hospital, table, offline=offline)
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
    last: Annotated[int, typer.Option(min=1, metavar="N", help="Print the last N payments; sums are over all.")] = 50,
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
