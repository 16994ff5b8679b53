"""`comagent graph`"""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from comagent.cli.completion import complete_jobs
from comagent.cli.screen import clean, console, count, say, width
from comagent.errors import InputError, UnknownJobError

if TYPE_CHECKING:
    from comagent.cli.drawing.picture import Picture
    from comagent.plan import Plan
    from comagent.spec import Process
    from comagent.store import JobRecord, Store

DRAWN = 1_000
"""Tasks that a drawing can show."""
LEAST = 40
"""Characters: a narrower terminal gets lines of this length."""


class Format(StrEnum):
    """What a graph is written as."""

    text = "text"
    mermaid = "mermaid"
    svg = "svg"
    dot = "dot"


SUFFIXES = {
    ".txt": Format.text,
    ".mmd": Format.mermaid,
    ".mermaid": Format.mermaid,
    ".svg": Format.svg,
    ".dot": Format.dot,
    ".gv": Format.dot,
}


def graph(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FILE|JOB",
            help="A process, YAML or JSON, or a job's id.",
            show_default=False,
            autocompletion=complete_jobs,
        ),
    ],
    form: Annotated[
        Format | None, typer.Option("--format", "-f", help="Otherwise the output's suffix says it, or it is text.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="A file to write, instead of stdout.")
    ] = None,
    job: Annotated[
        str | None,
        typer.Option(
            "--job", "-j", metavar="JOB", help="Colour a file by this job's states.", autocompletion=complete_jobs
        ),
    ] = None,
) -> None:
    """Draw a process: what runs after what; of a job with the states of its tasks."""
    if form is None and output is not None and output.suffix not in SUFFIXES:
        known = ", ".join(SUFFIXES)
        raise typer.BadParameter(f"{output} says no format. Give --format, or end it in {known}.", param_hint="OUT")
    form = form or (SUFFIXES[output.suffix] if output is not None else Format.text)
    picture, title = _picture(what, job)
    if form is Format.svg and picture.tasks > DRAWN:
        problem = f"{count(picture.tasks, 'task')} make no drawing that can be read"
        raise InputError(f"{problem}. Use `--format dot` with a program for large graphs, or `--format text`.")
    if output is None and form is Format.text:
        _print(picture, title)
        return
    text = _written(picture, form, title)
    if output is None:
        sys.stdout.write(text)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{output} cannot be written: {error.strerror}. Choose another file.") from None
    say(f"written to {output}")


def _picture(what: str, job: str | None) -> "tuple[Picture, str]":
    from comagent.cli.drawing.picture import picture
    from comagent.submission import prepare_file

    path = Path(what)
    if job is None and not path.exists() and not path.suffix and path.name == what:
        job = what
    if job is None:
        prepared = prepare_file(what)
        drawn = picture(prepared.process, prepared.plan)
        return drawn, _title(drawn)
    process, plan, record, statuses = _stored(job)
    if job != what:
        prepared = prepare_file(what)
        if prepared.plan.process_hash != plan.process_hash:
            say(f"{what} is not what job {job} runs: tasks that it does not have are shown as pending.")
        process, plan = prepared.process, prepared.plan
    drawn = picture(process, plan, statuses=statuses)
    return drawn, f"{_title(drawn)}, job {job}: {record.status.replace('_', ' ')}"


def _stored(job: str) -> "tuple[Process, Plan, JobRecord, dict[str, str]]":
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.spec import parse
    from comagent.submission import plan_from

    config = read_config()
    if is_empty(config):
        raise UnknownJobError(job)
    with opened(config) as (store, _):
        record = store.job(job)
        if record is None:
            raise UnknownJobError(job)
        statuses = _statuses(store, record)
    plan = plan_from(record.process_doc, record.tools_doc, process_hash=record.process_hash)
    return parse(json.loads(record.process_doc)), plan, record, statuses


def _statuses(store: "Store", record: "JobRecord") -> dict[str, str]:
    """By path, of the tasks that have ended or failed once; of the others nothing is stored."""
    retrying = dict.fromkeys(store.attempts(record.job_id), "retrying") if record.ended_ms is None else {}
    return retrying | {row.outcome.task: row.outcome.status for row in store.progress(record.job_id)}


def _title(picture: "Picture") -> str:
    from comagent.cli.drawing.picture import layers

    return f"{clean(picture.title)}: {count(picture.tasks, 'task')} in {count(len(layers(picture.boxes)), 'step')}"


def _print(picture: "Picture", title: str) -> None:
    from comagent.cli.drawing.outline import outline, plain

    out = console()
    lines = outline(picture, width=max(LEAST, width()), title=title)
    if out.is_terminal and "utf" in out.encoding.lower():
        for line in lines:
            out.print(line, soft_wrap=True)
    else:
        sys.stdout.write(plain(lines, encoding=out.encoding))


def _written(picture: "Picture", form: Format, title: str) -> str:
    if form is Format.mermaid:
        from comagent.cli.drawing.mermaid import mermaid

        return mermaid(picture)
    if form is Format.dot:
        from comagent.cli.drawing.dot import dot

        return dot(picture)
    if form is Format.svg:
        from comagent.cli.drawing.svg import svg

        return svg(picture, title=title)
    from comagent.cli.drawing.outline import outline, plain
    from comagent.cli.screen import WIDE

    return plain(outline(picture, width=WIDE, title=title))
