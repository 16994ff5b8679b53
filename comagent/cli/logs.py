"""`comagent logs`"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from comagent.cli.completion import complete_jobs
from comagent.cli.screen import clean, clock, console, count
from comagent.errors import InputError, UnknownJobError

if TYPE_CHECKING:
    from comagent.config import Config
    from comagent.coordination.runs import Run

TAIL_BYTES = 256 * 1024
"""How much of the end of a file is read."""
ACTOR = re.compile(r"^:actor_name:(.+)$", re.MULTILINE)
OF_RAY = re.compile(r"^:(?:job_id|actor_name|task_name):")
"""Lines that Ray writes for its own log reader."""
WORKER = re.compile(r"worker-[0-9a-f]+-[0-9a-f]+-(\d+)")
SEVERE = re.compile(r"^\[[^\]]* [EF] ")
"""A line of Ray's own processes that tells of an error."""
ERROR = re.compile(
    r"^Traceback|^Fatal |\b(?:ERROR|CRITICAL|FATAL)\b"
    r"|^(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b"
)


class Log(NamedTuple):
    """A log file, and what it has to say."""

    path: Path
    name: str
    """Who wrote it."""
    pid: int | None
    lines: list[str]
    """The last ones."""

    @property
    def errors(self) -> int:
        return sum(is_error(line) for line in self.lines)


def logs(
    job: Annotated[
        str | None,
        typer.Argument(
            metavar="JOB",
            help="A job, whose run is meant; the latest run if it is left out.",
            show_default=False,
            autocompletion=complete_jobs,
        ),
    ] = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, help="Last lines of each file.")] = 10,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Show where the actors of a run have written their logs, and the last lines; also when the run is over."""
    from comagent.cli.home import read_config
    from comagent.cli.report import print_json

    config = read_config()
    run = _run(config, job)
    folder = Path(run.session, "logs")
    if not folder.is_dir():
        raise InputError(f"the logs of {run.shard} are gone: there is no folder {folder}. Somebody has removed it.")
    found = sorted(_logs(folder, lines), key=lambda log: (log.errors > 0, log.name, log.pid or 0))
    if as_json:
        print_json(_document(run, folder, found))
        return
    _print(run, folder, found)


def is_error(line: str) -> bool:
    return ERROR.search(line) is not None or SEVERE.match(line) is not None


def _run(config: "Config", job: str | None) -> "Run":
    from comagent.cli.home import is_empty, opened
    from comagent.coordination.runs import Runs

    runs = Runs(config.runs)
    if job is None:
        latest = runs.all()
        if not latest:
            raise InputError(f"no run has left its traces in {config.home}. Start one with `comagent run`.")
        return latest[-1]
    if is_empty(config):
        raise UnknownJobError(job)
    with opened(config) as (store, _):
        record = store.job(job)
    if record is None:
        raise UnknownJobError(job)
    run = runs.read(record.shard)
    if run is None:
        raise InputError(f"nothing is known of {record.shard}, which had the job {job} last: its traces were removed.")
    return run


def _logs(folder: Path, last: int) -> Iterator[Log]:
    """Files with something in them: of actors all, of Ray's own processes those that tell of errors."""
    for path in sorted(folder.iterdir()):
        if path.suffix not in (".out", ".err", ".log") or not path.is_file():
            continue
        worker = WORKER.match(path.name)
        text = _end_of(path)
        told = [line for line in text.splitlines() if not OF_RAY.match(line)]
        if worker is None:
            told = [line for line in told if SEVERE.match(line)] if path.stem in ("raylet", "gcs_server") else []
        if told:
            actor = ACTOR.search(_start_of(path))
            name = path.stem if worker is None else actor[1] if actor else "worker"
            yield Log(path, name, int(worker[1]) if worker else None, told[-last:])


def _start_of(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(1024).decode(errors="replace")


def _end_of(path: Path) -> str:
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - TAIL_BYTES))
        text = file.read().decode(errors="replace")
    # The first line of a part is the rest of one.
    return text if size <= TAIL_BYTES else text.partition("\n")[2]


def _document(run: "Run", folder: Path, found: list[Log]) -> dict[str, Any]:
    return {
        "run": run.shard,
        "started_ms": run.started_ms,
        "is_alive": run.is_alive,
        "folder": str(folder),
        "files": [
            {"file": log.path.name, "name": log.name, "pid": log.pid, "errors": log.errors, "lines": log.lines}
            for log in found
        ],
    }


def _print(run: "Run", folder: Path, found: list[Log]) -> None:
    from rich.text import Text

    out = console()
    state = "is under way" if run.is_alive else "is over"
    print(f"{run.shard}, started {clock(run.started_ms)}, {state}")
    print(f"logs in {folder}")
    if not found:
        print("its actors have written nothing")
    for log in found:
        process = "" if log.pid is None else f", process {log.pid}"
        errors = f", {count(log.errors, 'line')} about errors" if log.errors else ""
        out.print()
        stream = {".out": ", stdout", ".err": ", stderr"}.get(log.path.suffix, "")
        out.print(Text(f"{log.name}{process}{stream}{errors}", "bold"), soft_wrap=True)
        out.print(Text(log.path.name, "dim"), soft_wrap=True)
        for line in log.lines:
            out.print(Text(f"  {clean(line)}", "red" if is_error(line) else ""), soft_wrap=True)
