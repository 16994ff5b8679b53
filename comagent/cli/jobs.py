"""`comagent jobs`"""

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comagent.cli.screen import STYLES, age, clean, duration, print_table, say, width
from comagent.nearest import did_you_mean
from comagent.states import JOB_STATUSES

if TYPE_CHECKING:
    from comagent.coordination import Coordination
    from comagent.store.base import JobRecord


OTHERS = 68
"""Characters of a line that are not the process's name."""


def jobs(
    status: Annotated[
        str | None,
        typer.Option(
            "--status",
            "-s",
            metavar="STATUS",
            help=f"One of: {', '.join(JOB_STATUSES)}.",
            autocompletion=lambda: list(JOB_STATUSES),
        ),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many at most.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the jobs in the store, latest first."""
    if status is not None and status not in JOB_STATUSES:
        hint = did_you_mean(status, JOB_STATUSES, otherwise=f"It is one of: {', '.join(JOB_STATUSES)}.")
        raise typer.BadParameter(f'there is no status "{status}". {hint}', param_hint="--status")
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.cli.report import print_json

    config = read_config()
    records: list[JobRecord] = []
    gone: set[str] = set()
    if not is_empty(config):
        with opened(config) as (store, coordination):
            records = store.jobs(status=status, limit=limit)
            gone = without_owner(coordination, records)
    if as_json:
        print_json([job_document(record, gone) for record in records])
        return
    if not records:
        say("no jobs" if status is None else f"no jobs that are {status.replace('_', ' ')}")
        return
    _print_table(records, gone)
    if len(records) == limit:
        say(f"Earlier jobs are not shown: `--limit` is {limit}.")


def without_owner(coordination: "Coordination", records: "list[JobRecord]") -> set[str]:
    """Ids of those that have not ended and whose owner is known to be gone."""
    from comagent.cli.orphans import is_dead

    living = {lease.shard for lease in coordination.leases() if not is_dead(lease)}
    return {record.job_id for record in records if record.ended_ms is None and record.shard not in living}


def job_document(record: "JobRecord", gone: set[str]) -> dict[str, Any]:
    return {
        "job_id": record.job_id,
        "process": record.process_name,
        "process_hash": record.process_hash,
        "status": record.status,
        "has_owner": record.ended_ms is None and record.job_id not in gone,
        "priority": record.priority,
        "submitted_ms": record.submitted_ms,
        "ended_ms": record.ended_ms,
    }


def took_text(record: "JobRecord", *, gone: bool) -> str:
    """How long it took, or has been running."""
    if record.ended_ms is None and gone:
        return ""
    return duration(((record.ended_ms or time.time() * 1000) - record.submitted_ms) / 1000)


def _print_table(records: "list[JobRecord]", gone: set[str]) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("JOB", no_wrap=True, min_width=36)
    table.add_column("PROCESS", no_wrap=True, overflow="ellipsis", max_width=max(7, width() - OTHERS))
    table.add_column("STATUS", no_wrap=True)
    table.add_column("AGE", no_wrap=True, justify="right")
    table.add_column("TOOK", no_wrap=True, justify="right")
    for record in records:
        resumable = record.job_id in gone
        status = "resumable" if resumable else record.status.replace("_", " ")
        table.add_row(
            record.job_id,
            Text(clean(record.process_name)),
            Text(status, STYLES.get(record.status, "") if not resumable else "magenta"),
            age(time.time() - record.submitted_ms / 1000),
            took_text(record, gone=resumable),
        )
    print_table(table, least=OTHERS + 7)
