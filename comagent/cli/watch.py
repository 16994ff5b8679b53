"""`comagent watch`"""

from typing import Annotated

import typer

from comagent.cli.arguments import Job
from comagent.cli.screen import say
from comagent.errors import UnknownJobError

INTERRUPTED = 130


def watch(
    job: Job,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, instead of the outputs.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress, only wait.")] = False,
) -> None:
    """Watch a job that runs elsewhere, and print its outputs when it has ended. Ctrl-C only stops watching.

    What is shown was committed. A task whose needs have all ended is `ready`: it may be running.
    """
    from comagent.cli.display import display_for
    from comagent.cli.following import follow
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.cli.report import end_document, print_end, print_json
    from comagent.cli.stored import end_of
    from comagent.cli.watched import Watched

    config = read_config()
    if is_empty(config):
        raise UnknownJobError(job)
    display = display_for(quiet=quiet)
    with opened(config) as (store, coordination):
        watched: Watched | None = None
        try:
            for news in follow(store, coordination, job):
                if watched is None and news.record.ended_ms is not None:
                    say(f"job {job} has ended already: {news.record.status.replace('_', ' ')}")
                    break
                watched = watched or Watched(news.record, display)
                watched.see(news)
        except KeyboardInterrupt:
            display.close()
            display.note("Stopped watching; the job goes on.")
            raise typer.Exit(INTERRUPTED) from None
        display.close()
        if news.record.ended_ms is None:
            say(f"its run is gone: `comagent resume {job}` goes on with it")
            raise typer.Exit(1)
        end = end_of(store, news.record, config)
    print_json(end_document(end)) if as_json else print_end(end)
    raise typer.Exit(end.exit_code)
