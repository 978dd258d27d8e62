"""The coordinator's command line: `fedurwkv coordinator ...`."""

from pathlib import Path
from typing import Annotated

import typer

coordinator = typer.Typer(
    help="A study's server: its certificates, its sites, its runs.", no_args_is_help=True, suggest_commands=False
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="The study's folder.")]
Name = Annotated[str | None, typer.Argument(metavar="RUN", help="The run's name; without one, the newest.")]


@coordinator.callback()
def about() -> None:
    """A study's server: its certificates, its sites, its runs."""


@coordinator.command()
def init(
    folder: Folder,
    names: Annotated[
        list[str],
        typer.Option("--name", metavar="HOST", help="A name or address by which hospitals reach this server."),
    ],
    listen: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",
    port: Annotated[int, typer.Option(help="The port to listen on.")] = 9092,
    health: Annotated[str, typer.Option(help='Where the health service listens; "" for none.')] = "127.0.0.1:9093",
) -> None:
    """Make a study: certificate authority, server certificate for --name, settings."""
    from server.study import make_study

    study = make_study(folder, names, listen, port, health)
    typer.echo(f"made {study.folder} for {', '.join(study.hosts)}, port {study.port}")
    typer.echo(f"every hospital gets {study.ca}; {study.folder / 'ca.key'} never leaves: keep a copy somewhere safe")


@coordinator.command()
def renew(folder: Folder) -> None:
    """Make a new server certificate for the hosts in study.yaml; hospitals need not change anything."""
    from server.study import read_study

    study = read_study(folder)
    typer.echo(
        f"a new certificate, valid for {study.renew():.0f} days; restart fedurwkv coordinator start to show it"
    )


@coordinator.command()
def enroll(
    folder: Folder,
    site: Annotated[str, typer.Argument(metavar="SITE", help="The hospital's name in the study.")],
    key: Annotated[Path, typer.Argument(metavar="KEY.pub", help="The public key that the hospital made.")],
) -> None:
    """Admit a hospital by its public key, in a running study at once."""
    from server.coordinator import enrol, is_serving
    from server.study import read_study

    study = read_study(folder)
    admitted = study.admit(site, key)
    serving = is_serving(study)
    if serving:
        enrol(study)
    typer.echo(f"{site} is admitted by {admitted.fingerprint}: compare it with what the hospital reads out")
    typer.echo("the running study lets it in now" if serving else "the study lets it in once it is started")


@coordinator.command()
def revoke(
    folder: Folder, site: Annotated[str, typer.Argument(metavar="SITE", help="The hospital's name in the study.")]
) -> None:
    """Admit a hospital no longer; in a running study its next call is refused."""
    from server.coordinator import enrol, is_serving
    from server.study import read_study

    study = read_study(folder)
    revoked = study.revoke(site)
    if is_serving(study):
        enrol(study)
    typer.echo(f"{site} is admitted no longer, and {revoked.fingerprint} never again")


@coordinator.command()
def start(folder: Folder) -> None:
    """Serve the study in the foreground until SIGTERM or Ctrl-C."""
    from server.coordinator import start as serve
    from server.study import read_study

    serve(read_study(folder))


@coordinator.command()
def run(
    folder: Folder,
    scenario: Annotated[
        Path | None, typer.Argument(metavar="SCENARIO", help="YAML file of differences on the default settings.")
    ] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; beats the scenario.")
    ] = None,
) -> None:
    """Run a federation over the enrolled hospitals and follow it to its end."""
    from rich.console import Console

    from server.study import read_study
    from server.study_run import run as submit

    submit(read_study(folder), scenario, sets or [], Console())


@coordinator.command()
def status(folder: Folder) -> None:
    """The sites and the newest run: who is connected, who is waited for, round, Dice, time left, who was refused."""
    from server.study import read_study
    from server.study_status import status as lines

    for line in lines(read_study(folder)):
        typer.echo(line)


@coordinator.command()
def stop(folder: Folder, name: Name = None) -> None:
    """Stop a run; every finished round is kept."""
    from server.study import read_study
    from server.study_run import stop as end

    ended = end(read_study(folder), name)
    typer.echo(f"stopped {ended.name}; go on with it: fedurwkv coordinator resume {folder} {ended.name}")


@coordinator.command()
def resume(folder: Folder, name: Name = None) -> None:
    """Go on with a stopped or failed run from its last finished round, and follow it to its end."""
    from rich.console import Console

    from server.study import read_study
    from server.study_run import resume as go_on

    go_on(read_study(folder), name, Console())
