"""Arguments that several commands share."""

from typing import Annotated

import typer

from comagent.cli.completion import complete_jobs

Job = Annotated[
    str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False, autocompletion=complete_jobs)
]
