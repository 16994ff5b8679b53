"""`comagent show`"""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comagent.cli.arguments import Job
from comagent.cli.events import event_document, event_text
from comagent.cli.screen import STYLES, clean, clock, count, duration, print_table, shortened, tally, width
from comagent.errors import UnknownJobError

if TYPE_CHECKING:
    from comagent.config import Config
    from comagent.job_view import JobView
    from comagent.store import Store
    from comagent.store.base import EventRow, JobRecord, ProgressRow

TASKS = 200
"""Tasks that are listed; of more, those that did not succeed."""
ERRORS = 10
EVENTS = 50
RESULT_CHARS = 200
OUTPUT_CHARS = 4_000


def show(
    job: Job,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object, with everything in full.")] = False,
) -> None:
    """Show a job: its tasks, results, errors with their tracebacks, and events."""
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.cli.jobs import without_owner
    from comagent.cli.report import print_json
    from comagent.job_view import ended_view

    config = read_config()
    if is_empty(config):
        raise UnknownJobError(job)
    with opened(config) as (store, coordination):
        record = store.job(job)
        if record is None:
            raise UnknownJobError(job)
        rows = store.progress(job)
        events = _events(store, job)
        gone = without_owner(coordination, [record])
        view = ended_view(record, rows)
    if as_json:
        print_json(_document(record, rows, events, view=view, gone=gone, config=config))
    else:
        _print(record, rows, events, view=view, gone=bool(gone), config=config)


def _events(store: "Store", job: str) -> "list[EventRow]":
    events: list[EventRow] = []
    while page := store.events(job, after_seq=events[-1].seq if events else 0):
        events += page
    return events


def _document(
    record: "JobRecord",
    rows: "list[ProgressRow]",
    events: "list[EventRow]",
    *,
    view: "JobView",
    gone: set[str],
    config: "Config",
) -> dict[str, Any]:
    from comagent.cli.jobs import job_document
    from comagent.cli.stored import value_of
    from comagent.plan import OUTPUTS

    return {
        **job_document(record, gone),
        "inputs": json.loads(record.inputs_doc),
        "outputs": value_of(view.result, config) if record.status == "succeeded" else None,
        "error": _error(record.error),
        "tasks": view.summary(),
        "outcomes": [
            {
                "task": row.outcome.task,
                "status": row.outcome.status,
                "attempt": row.outcome.attempt,
                "started_ms": row.outcome.started_ms,
                "ended_ms": row.outcome.ended_ms,
                "result": None if row.outcome.result is None else json.loads(row.outcome.result),
                "document": row.outcome.document,
                "error": _error(row.outcome.error),
            }
            for row in rows
            if row.outcome.task != OUTPUTS
        ],
        "events": [event_document(row) for row in events],
    }


def _print(
    record: "JobRecord",
    rows: "list[ProgressRow]",
    events: "list[EventRow]",
    *,
    view: "JobView",
    gone: bool,
    config: "Config",
) -> None:
    from comagent.cli.jobs import took_text
    from comagent.cli.readable import outputs_text, readable
    from comagent.cli.stored import value_of

    status = record.status.replace("_", " ")
    if gone:
        status += f", but its run is gone: `comagent resume {record.job_id}` goes on with it"
    print(f"job        {record.job_id}")
    print(f"process    {clean(record.process_name)}")
    print(f"status     {status}")
    print(f"submitted  {clock(record.submitted_ms)}")
    if took := took_text(record, gone=gone):
        print(f"took       {took}" if record.ended_ms is not None else f"runs for   {took}")
    print(f"tasks      {tally(view.summary())}")
    inputs = json.loads(record.inputs_doc)
    if inputs:
        print("\ninputs")
        _print_indented(_cut(readable(inputs)))
    _print_tasks(record, rows)
    _print_errors(record, rows)
    _print_events(record, events)
    if record.status == "succeeded" and view.result is not None:
        print("\noutputs")
        _print_indented(_cut(outputs_text(value_of(view.result, config))))


def _print_tasks(record: "JobRecord", rows: "list[ProgressRow]") -> None:
    from rich.table import Table
    from rich.text import Text

    from comagent.plan import paths_of

    ended = {row.outcome.task: row.outcome for row in rows}
    ids = list(paths_of(json.loads(record.process_doc)))
    shown = ids
    if len(ids) > TASKS:
        shown = [task for task in ids if task in ended and ended[task].status != "succeeded"][:TASKS]
    if not shown:
        return
    table = Table(box=None, header_style="bold", padding=(0, 2, 0, 0))
    table.add_column("TASK", no_wrap=True, overflow="ellipsis", max_width=width() // 3)
    table.add_column("STATUS", no_wrap=True)
    table.add_column("ATTEMPT", no_wrap=True, justify="right")
    table.add_column("AFTER", no_wrap=True, justify="right")
    table.add_column("TOOK", no_wrap=True, justify="right")
    table.add_column("RESULT", no_wrap=True, overflow="ellipsis")
    for task in shown:
        outcome = ended.get(task)
        if outcome is None:
            table.add_row(Text(clean(task)), Text("not ended", "dim"))
            continue
        ran = outcome.status not in ("skipped", "cancelled")
        table.add_row(
            Text(clean(task)),
            Text(outcome.status.replace("_", " "), STYLES.get(outcome.status, "")),
            str(outcome.attempt) if ran else "",
            duration((outcome.started_ms - record.submitted_ms) / 1000) if ran else "",
            duration((outcome.ended_ms - outcome.started_ms) / 1000) if ran else "",
            Text(_result(outcome.result, outcome.document, outcome.error)),
        )
    print()
    print_table(table)
    if len(ids) > len(shown):
        print(f"and {count(len(ids) - len(shown), 'task')} not shown; `--json` has all")


def _result(result: bytes | None, document: str | None, error: bytes | None) -> str:
    from comagent.cli.board import error_text

    if result is not None:
        return shortened(result.decode(), RESULT_CHARS)
    if document is not None:
        return f"document {document[:12]}…"
    return "" if error is None else error_text(json.loads(error))


def _print_errors(record: "JobRecord", rows: "list[ProgressRow]") -> None:
    from comagent.cli.report import named

    failed = [row.outcome for row in rows if row.outcome.status in ("failed", "timed_out", "uncertain")]
    for outcome in failed[:ERRORS]:
        error = _error(outcome.error) or {}
        verb = "failed" if outcome.status == "failed" else outcome.status.replace("_", " ")
        print(f"\n{clean(named(outcome.task))} {verb}, attempt {outcome.attempt}")
        _print_indented(str(error.get("traceback") or f"{error.get('type')}: {error.get('message')}"))
    if len(failed) > ERRORS:
        print(f"\nand {len(failed) - ERRORS} more that failed; `--json` has all")
    job_error = _error(record.error)
    if job_error is not None and not failed:
        print(f"\nerror\n  {shortened(str(job_error.get('message')), 1000)}")


def _print_events(record: "JobRecord", events: "list[EventRow]") -> None:
    if not events:
        return
    print("\nevents")
    for row in events[:EVENTS]:
        event = row.event
        after = duration((event.at_ms - record.submitted_ms) / 1000)
        print(f"  after {after}: {event_text(event.kind, event.task, json.loads(event.body))}")
    if len(events) > EVENTS:
        print(f"  and {len(events) - EVENTS} more; `--json` has all")


def _error(error: bytes | None) -> dict[str, Any] | None:
    return None if error is None else json.loads(error)


def _cut(text: str) -> str:
    return text if len(text) <= OUTPUT_CHARS else f"{text[:OUTPUT_CHARS]}…\n(cut; `--json` has all)"


def _print_indented(text: str) -> None:
    for line in clean(text).rstrip("\n").split("\n"):
        print(f"  {line}" if line else "")
