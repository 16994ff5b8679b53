"""`comagent validate`"""

from pathlib import Path
from typing import Annotated

import typer

from comagent.cli.screen import clean, count, say
from comagent.errors import InputError


def validate(
    files: Annotated[list[Path], typer.Argument(metavar="FILES", help="Processes, YAML or JSON.", show_default=False)],
) -> None:
    """Check processes without running them: all problems of all files, with their places."""
    from comagent.submission import prepare_file

    valid = True
    for file in files:
        try:
            process = prepare_file(file).process
        except InputError as error:
            valid = False
            say(str(error))
            continue
        tasks = [task for _, task in process.all_tasks()]
        tools = sorted({task.tool for task in tasks if task.tool is not None})
        print(clean(f"{file}: {process.name}, {count(len(tasks), 'task')}, tools: {', '.join(tools)}"))
    if not valid:
        raise typer.Exit(2)
