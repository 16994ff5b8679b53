"""All commands under one name, and what becomes of errors."""

import sys
from importlib.metadata import version as installed
from io import TextIOWrapper
from platform import python_version
from typing import Annotated

import typer

from comagent.cli.agents import agents
from comagent.cli.cancel import cancel
from comagent.cli.cleanup import cleanup
from comagent.cli.doctor import doctor
from comagent.cli.events import events
from comagent.cli.graph import graph
from comagent.cli.init import init
from comagent.cli.jobs import jobs
from comagent.cli.logs import logs
from comagent.cli.resume import resume
from comagent.cli.run import run
from comagent.cli.screen import complain
from comagent.cli.show import show
from comagent.cli.tools import app as tools
from comagent.cli.validate import validate
from comagent.cli.watch import watch
from comagent.errors import CannotConnectError, ComAgentError, InputError

app = typer.Typer(
    name="comagent",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        version()
        raise typer.Exit


@app.callback()
def comagent(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version, and end."),
    ] = False,
) -> None:
    """Runs graphs of agents' tasks on Ray, and goes on after a crash without repeating finished work.

    The folder COMAGENT_HOME (~/.comagent) keeps the jobs.

    Exit codes: 0 succeeded, 1 any other end of a job, 2 bad usage or input, 3 cannot connect, 130 interrupted.
    """


def version() -> None:
    """Print the versions of ComAgent, Ray and Python."""
    print(f"comagent {installed('comagent')} (ray {installed('ray')}, python {python_version()})")


WORK = "Processes"
JOBS = "Jobs"
MACHINE = "This machine"

app.command(rich_help_panel=WORK)(init)
app.command(rich_help_panel=WORK)(validate)
app.command(rich_help_panel=WORK)(graph)
app.command(rich_help_panel=WORK)(run)
app.command(rich_help_panel=WORK)(agents)
app.add_typer(tools, name="tools", rich_help_panel=WORK)
app.command(rich_help_panel=JOBS)(jobs)
app.command(rich_help_panel=JOBS)(show)
app.command(rich_help_panel=JOBS)(watch)
app.command(rich_help_panel=JOBS)(events)
app.command(rich_help_panel=JOBS)(logs)
app.command(rich_help_panel=JOBS)(resume)
app.command(rich_help_panel=JOBS)(cancel)
app.command(rich_help_panel=MACHINE)(doctor)
app.command(rich_help_panel=MACHINE)(cleanup)
app.command(rich_help_panel=MACHINE)(version)


def main() -> None:
    """Runs the command that the arguments name, and ends the process with its exit code."""
    if isinstance(sys.stdout, TextIOWrapper):
        # A terminal that lacks a character shows its code instead.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except ComAgentError as error:
        complain(error)
        sys.exit(exit_code(error))


def exit_code(error: ComAgentError) -> int:
    match error:
        case InputError():
            return 2
        case CannotConnectError():
            return 3
    return 1
