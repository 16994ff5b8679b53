"""`comagent events`"""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from comagent.cli.arguments import Job
from comagent.cli.screen import STYLES, WIDE, clean, console, duration, say, shortened, width
from comagent.errors import UnknownJobError

if TYPE_CHECKING:
    from rich.text import Text

    from comagent.store import EventRow, JobRecord, ProgressRow

VALUE_CHARS = 200
LEAST = 60
"""Characters of a line: in a narrower terminal nothing is cut."""
INTERRUPTED = 130


def events(
    job: Job,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Wait for more, until the job has ended or its run is gone.")
    ] = False,
    after: Annotated[int, typer.Option("--after", metavar="SEQ", min=0, help="Only what comes after this number.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object in each line.")] = False,
) -> None:
    """List everything durable that happened to a job, in order: outcomes of tasks, failed attempts, and the rest."""
    from comagent.cli import following
    from comagent.cli.home import is_empty, opened, read_config

    config = read_config()
    if is_empty(config):
        raise UnknownJobError(job)
    read = following.follow if follow else following.so_far
    with opened(config) as (store, coordination):
        try:
            for news in read(store, coordination, job, after_seq=after):
                _print(news.rows, news.record, as_json=as_json)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
    if follow and news.gone:
        say(f"its run is gone: `comagent resume {job}` goes on with it")


def event_document(row: "ProgressRow | EventRow") -> dict[str, Any]:
    """A row for machines. The outcome that is the job's result belongs to no task."""
    from comagent.plan import OUTPUTS
    from comagent.store import EventRow

    if isinstance(row, EventRow):
        event = row.event
        return {
            "seq": row.seq,
            "kind": event.kind,
            "task": event.task,
            "at_ms": event.at_ms,
            "body": json.loads(event.body),
        }
    outcome = row.outcome
    return {
        "seq": row.seq,
        "kind": "outcome",
        "task": None if outcome.task == OUTPUTS else outcome.task,
        "at_ms": outcome.ended_ms,
        "body": {
            "status": outcome.status,
            "attempt": outcome.attempt,
            "started_ms": outcome.started_ms,
            "ended_ms": outcome.ended_ms,
            "result": None if outcome.result is None else json.loads(outcome.result),
            "document": outcome.document,
            "error": None if outcome.error is None else json.loads(outcome.error),
        },
    }


def event_text(kind: str, task: str | None, body: dict[str, Any]) -> str:
    """An event in one line."""
    from comagent.cli.board import error_text

    if kind == "attempt_failed":
        again = f" (tried again in {duration(body['retry_in_s'])})" if body.get("retry_in_s") is not None else ""
        return f"attempt {body['attempt']} of {clean(str(task))} failed: {error_text(body['error'])}{again}"
    about = "" if task is None else f" {clean(task)}"
    return f"{kind.replace('_', ' ')}{about} {shortened(json.dumps(body, ensure_ascii=False), VALUE_CHARS)}"


def _print(rows: "list[ProgressRow | EventRow]", record: "JobRecord", *, as_json: bool) -> None:
    if as_json:
        for row in rows:
            print(json.dumps(event_document(row), ensure_ascii=False), flush=True)
        return
    out, room = console(), width()
    room = room if room >= LEAST else WIDE
    for row in rows:
        line = _line(row, record.submitted_ms)
        if room < WIDE:
            line.truncate(room, overflow="ellipsis")
            out.print(line, soft_wrap=True)
        else:
            print(line.plain, flush=True)


def _line(row: "ProgressRow | EventRow", submitted_ms: int) -> "Text":
    """`   12   +0.40 s  load: succeeded in 0.10 s`"""
    from rich.text import Text

    from comagent.cli.board import Line, error_text
    from comagent.plan import OUTPUTS
    from comagent.store import EventRow

    if isinstance(row, EventRow):
        at_ms, style = row.event.at_ms, "magenta"
        text = event_text(row.event.kind, row.event.task, json.loads(row.event.body))
    else:
        outcome = row.outcome
        at_ms, style = outcome.ended_ms, STYLES.get(outcome.status, "")
        name = "the outputs" if outcome.task == OUTPUTS else clean(outcome.task)
        took_s = (outcome.ended_ms - outcome.started_ms) / 1000
        note = "" if outcome.error is None else error_text(json.loads(outcome.error))
        text = Line(name, outcome.status, outcome.attempt, took_s=took_s, note=note).text()
    after = f"+{duration((at_ms - submitted_ms) / 1000)}"
    return Text.assemble((f"{row.seq:>5}  {after:>12}  ", "dim"), (text, style))
