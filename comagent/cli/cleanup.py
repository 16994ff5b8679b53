"""`comagent cleanup`"""

from typing import Annotated

import typer

from comagent.cli.screen import clean, say


def cleanup(
    dry_run: Annotated[bool, typer.Option("--dry-run", "-n", help="Only say what would be done.")] = False,
    older_than: Annotated[
        str, typer.Option("--older-than", metavar="AGE", help="Keep logs and unfinished files that are younger.")
    ] = "1d",
) -> None:
    """End and remove what earlier runs have left behind. Jobs stay, and so does whatever belongs to a living run.

    Processes are ended by the ids and start times that their run has recorded, never by name.
    """
    from comagent.cli.home import opened, read_config
    from comagent.cli.leftovers import leftovers
    from comagent.spec import parse_duration

    try:
        older_than_s = parse_duration(older_than)
    except ValueError as error:
        raise typer.BadParameter(f"{error}.", param_hint="--older-than") from None
    config = read_config()
    found = 0
    if config.home.is_dir():
        with opened(config) as (_, coordination):
            for leftover in leftovers(config, coordination, older_than_s=older_than_s):
                found += 1
                if not dry_run:
                    leftover.do()
                print(
                    clean(f"{f'would be {leftover.done}' if dry_run else leftover.done}: {leftover.what}"), flush=True
                )
    if not found:
        say("nothing to clean up")
