"""What a shell offers when Tab is pressed. A command line must not fail for it, nor wait long."""

import typer

from comagent.errors import ComAgentError

OFFERED = 30


def complete_jobs(incomplete: str) -> list[tuple[str, str]]:
    """Ids of the latest jobs that begin so, each with what tells it from others."""
    return _jobs(incomplete, unfinished=False)


def complete_unfinished(incomplete: str) -> list[tuple[str, str]]:
    """The same of jobs that have not ended."""
    return _jobs(incomplete, unfinished=True)


def _jobs(incomplete: str, *, unfinished: bool) -> list[tuple[str, str]]:
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.cli.screen import shortened

    try:
        config = read_config()
        if is_empty(config):
            return []
        with opened(config) as (store, _):
            records = store.jobs(limit=1000 if unfinished else OFFERED)
    except (ComAgentError, OSError, typer.BadParameter):
        return []
    return [
        (record.job_id, f"{shortened(record.process_name, 40)}, {record.status.replace('_', ' ')}")
        for record in records
        if record.job_id.startswith(incomplete) and not (unfinished and record.ended_ms is not None)
    ][:OFFERED]
