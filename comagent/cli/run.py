"""`comagent run`"""

from pathlib import Path
from typing import Annotated

import typer

from comagent.cli.screen import say


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A process, YAML or JSON.", show_default=False)],
    given: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="NAME=VALUE", help="An input. Text, or JSON where the process wants it."),
    ] = None,
    inputs_file: Annotated[
        Path | None, typer.Option("--inputs", metavar="FILE.json", help="Inputs by name, as a JSON object.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of the outputs.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Run a process here, and print its outputs.

    Everything is checked before anything starts. The first Ctrl-C cancels the job, a second one stops at once: then
    `comagent resume` goes on with the job.
    """
    from comagent.cli.home import opened, read_config
    from comagent.cli.inputs import read_inputs
    from comagent.cli.orphans import bury, orphans
    from comagent.coordination.runs import Runs
    from comagent.ids import uuid7
    from comagent.submission import prepare_file, submission

    prepared = prepare_file(file)
    inputs = read_inputs(prepared.process, given or [], inputs_file)
    submission(prepared, inputs, job_id=uuid7())
    config = read_config()
    with opened(config) as (store, coordination):
        bury(coordination, Runs(config.runs))
        left = len(orphans(store, coordination))
    if left:
        which = "an unfinished job" if left == 1 else f"{left:,} unfinished jobs"
        say(f"Earlier runs have left {which}: `comagent resume --all` goes on with {'it' if left == 1 else 'them'}.")

    from comagent.cli.attend import End, attend
    from comagent.cli.board import Board
    from comagent.cli.display import display_for
    from comagent.cli.report import end_document, print_end, print_json

    process = prepared.process

    def on_end(end: End) -> None:
        if end.outputs is not None:
            # As they are written in the process: the store keeps them sorted.
            end = end._replace(outputs={name: end.outputs[name] for name in process.outputs or end.outputs})
        print_json(end_document(end)) if as_json else print_end(end)

    attended = attend(
        config,
        lambda client: [client.submit(prepared, inputs).job_id],
        board=lambda ids: Board(f"{process.name}, job {ids[0]}", [task.id for task in process.tasks], noun="task"),
        display=display_for(quiet=quiet),
        on_end=lambda ends: on_end(ends[0]),
    )
    raise typer.Exit(attended.exit_code)
