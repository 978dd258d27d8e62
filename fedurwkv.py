"""The front door: one command line, composed of the folders' own commands.

Heavy imports wait until a command needs them, so that `fedurwkv --help` answers at once.
"""

import logging
import os
import sys
from pathlib import Path
from typing import Annotated

import click
import typer

from client.commands import site
from protocol.errors import FedURWKVError
from server.commands import coordinator

app = typer.Typer(
    help="Hospitals train one medical segmentation network together; no image leaves a hospital.",
    epilog="An error is one line; with --debug anywhere among the words it is a stack trace.",
    no_args_is_help=True,
    suggest_commands=False,  # click does, too
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(site, name="site")
app.add_typer(coordinator, name="coordinator")

INTERRUPTED = 130

Scenario = Annotated[Path | None, typer.Argument(help="YAML file of differences on the default settings.")]
Sets = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A setting; beats the scenario.")]


@app.command()
def simulate(
    scenario: Scenario = None,
    engine: Annotated[str, typer.Option(help="local: this process; ray: Flower's runtime on Ray.")] = "local",
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
) -> None:
    """Simulate a federation of hospitals on this machine.

    SCENARIO is a YAML file of differences on the settings in pyproject.toml; without one, phantoms.
    """
    from rich.console import Console

    from simulation.simulate import simulate as run

    run(scenario, engine, sets or [], out, resume, Console())


@app.command()
def compare(
    scenario: Scenario = None,
    strategies: Annotated[str | None, typer.Option(metavar="A,B,...", help="The strategies, commas between.")] = None,
    seeds: Annotated[int | None, typer.Option(metavar="N", help="Runs of each, from the setting `seed` on.")] = None,
    baselines: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="local: each site alone; ensemble: of these; central: pooled images."),
    ] = None,
    own: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="NAME:KEY=VALUE,...", help="Settings of one strategy or baseline alone."),
    ] = None,
    tune: Annotated[
        list[str] | None, typer.Option(metavar="KEY=V1,V2,...", help="Values that everyone tries on the first seed.")
    ] = None,
    engine: Annotated[
        str | None, typer.Option(help="local: this process; ray: Flower's runtime on Ray.", show_default="local")
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(metavar="N", help="Runs at once.", show_default="one a GPU, or one")
    ] = None,
    sets: Sets = None,
    out: Annotated[Path | None, typer.Option(help="The comparison's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the comparison in --out.")] = False,
) -> None:
    """Compare strategies, and training alone or on pooled images, on the same pretend hospitals.

    Writes a page that says what differs, by how much, and what cannot be said.
    """
    from rich.console import Console

    from simulation.compare.command import compare as run
    from simulation.compare.words import Words

    words = Words(scenario, sets or [], strategies, seeds, baselines, own or [], tune or [], engine)
    run(words, out, resume, jobs, Console())


@app.command()
def partition(
    out: Annotated[Path, typer.Option(help="Where to write the site folders.")],
    scenario: Scenario = None,
    sets: Sets = None,
) -> None:
    """Write the pretend sites of SCENARIO, or of the default settings, and a report of how unlike they are."""
    from simulation.sites_command import partition_command

    partition_command(scenario, out, sets or [])


@app.command()
def report(run: Annotated[Path, typer.Argument(help="The run's folder.")]) -> None:
    """Make report.html of the finished run in the folder RUN again."""
    from simulation.report import write_report

    typer.echo(write_report(run))


@app.command()
def track(
    run: Annotated[Path, typer.Argument(help="The run's folder.")],
    uri: Annotated[str | None, typer.Option(help="Another MLflow than the run's tracking.uri.")] = None,
) -> None:
    """Bring MLflow up to date with the journal of the run in the folder RUN."""
    from server.tracking import track as catch_up

    typer.echo(catch_up(run, uri))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="The model.safetensors of a run.")],
    images: Annotated[Path, typer.Argument(help="A folder of pictures, or one picture: png, jpg, tif.")],
    out: Annotated[Path, typer.Option(help="A new folder for masks, overlays and areas.csv.")],
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    tile: Annotated[
        int | None,
        typer.Option(metavar="N", help="At the pictures' own resolution, in overlapping tiles of N x N pixels."),
    ] = None,
    size: Annotated[
        int | None, typer.Option(metavar="N", help="The side to resize to, instead of the one trained on.")
    ] = None,
    overlays: Annotated[bool, typer.Option(help="Also draw the outlines on the pictures.")] = True,
) -> None:
    """Write the masks that MODEL predicts for IMAGES, pictures with their outlines, and a table of areas."""
    from rich.console import Console

    from client.predict import Wanted
    from client.predict import predict as run

    run(model, images, Wanted(out, device, tile, size, overlays), Console())


@app.command()
def export(
    model: Annotated[Path, typer.Argument(help="The model.safetensors of a run.")],
    onnx: Annotated[Path, typer.Option(metavar="FILE", help="The ONNX file to write.")],
) -> None:
    """Write MODEL as an ONNX file, checked against torch: pixels in, logits out, any batch, height and width."""
    from rich.console import Console

    from client.export import export as run

    run(model, onnx, Console())


def main() -> None:
    """Run the command line: exit code 0 done, 1 the work failed, 2 the words were wrong."""
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    words = [word for word in sys.argv[1:] if word != "--debug"]
    debug = len(words) < len(sys.argv) - 1
    logging.basicConfig(level=logging.DEBUG if debug else logging.ERROR, format="%(name)s: %(message)s")
    try:
        sys.exit(_outcome(app(words, standalone_mode=False)))
    except click.exceptions.NoArgsIsHelpError as nothing:
        nothing.show()
        sys.exit(nothing.exit_code)
    except Exception as error:
        if debug:
            raise
        typer.echo(f"error: {_said(error)}", err=True)
        sys.exit(getattr(error, "exit_code", 1))


def _outcome(code: int | None) -> int:
    """The exit code of a command that returned; typer makes 130 of a Ctrl-C that nobody else took."""
    if code == INTERRUPTED:
        raise click.Abort
    return code or 0


def _said(error: Exception) -> str:
    """An error's message in one line."""
    if isinstance(error, click.Abort):
        return "interrupted"
    if isinstance(error, click.ClickException):
        return " ".join(error.format_message().split())
    words = " ".join(str(error).split())
    if isinstance(error, FedURWKVError | OSError):
        return words
    return f"a fault of the program ({type(error).__name__}: {words}); run again with --debug and report it"


if __name__ == "__main__":
    main()
