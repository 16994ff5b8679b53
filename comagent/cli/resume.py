"""`comagent resume`"""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from comagent.cli.completion import complete_unfinished
from comagent.cli.screen import clock, count, say
from comagent.errors import ConflictError, UnknownJobError

if TYPE_CHECKING:
    from comagent.cli.attend import Attended, End
    from comagent.config import Config
    from comagent.coordination import Coordination
    from comagent.store import Store
    from comagent.store.base import JobRecord


def resume(
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="The job's id.", show_default=False, autocompletion=complete_unfinished),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="All jobs whose owner is gone.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON instead of the outputs: an object, with --all a list.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Go on with jobs whose owner is gone, without repeating what is done.

    A job that has ended is not run again; its outputs are printed. What is left of the dead run is ended first.
    """
    if (job is None) == (not every):
        raise typer.BadParameter("say which job, or --all.", param_hint="JOB")
    from comagent.cli.home import is_empty, opened, read_config
    from comagent.cli.orphans import bury
    from comagent.cli.report import end_document, print_end, print_json
    from comagent.cli.stored import end_of
    from comagent.coordination.runs import Runs

    config = read_config()
    if is_empty(config):
        if job is not None:
            raise UnknownJobError(job)
        _nothing(as_json=as_json)
    with opened(config) as (store, coordination):
        bury(coordination, Runs(config.runs))
        if job is not None:
            record = store.job(job)
            if record is None:
                raise UnknownJobError(job)
            if record.ended_ms is not None:
                end = end_of(store, record, config)
                say(f"job {job} has ended already: {end.status.replace('_', ' ')}")
                print_json(end_document(end)) if as_json else print_end(end)
                raise typer.Exit(end.exit_code)
            wanted = [_without_owner(coordination, record, config)]
        else:
            wanted = _all_without_owner(store, coordination, config)
        if not wanted:
            _nothing(as_json=as_json)
    raise typer.Exit(_run(config, wanted, single=job is not None, as_json=as_json, quiet=quiet).exit_code)


def _nothing(*, as_json: bool) -> None:
    say("nothing to resume")
    if as_json:
        print("[]")
    raise typer.Exit(0)


def _without_owner(coordination: "Coordination", record: "JobRecord", config: "Config") -> "JobRecord":
    """The job, if nobody owns it. Raises `ConflictError` that says who does."""
    from comagent.cli.orphans import driver, expired, started_ms

    lease = coordination.lease(record.shard)
    if lease is not None and not expired(coordination, [lease], ttl_s=config.lease_ttl_s):
        process = driver(lease)
        since_ms = None if process is None else started_ms(process)
        who = "a run in another place" if process is None else f"the run in process {process.pid}"
        since = "" if since_ms is None else f", started {clock(since_ms)}"
        raise ConflictError(record.job_id, f"it belongs to {who}{since}, which is alive. Wait for it, or end that run.")
    return record


def _all_without_owner(store: "Store", coordination: "Coordination", config: "Config") -> "list[JobRecord]":
    from comagent.cli.orphans import expired, orphans

    doubtful = [lease for lease in coordination.leases() if store.unfinished([lease.shard])]
    ids = orphans(store, coordination, beside=expired(coordination, doubtful, ttl_s=config.lease_ttl_s))
    return [record for record in map(store.job, ids) if record is not None]


def _run(config: "Config", wanted: "list[JobRecord]", *, single: bool, as_json: bool, quiet: bool) -> "Attended":
    from comagent.cli.attend import attend
    from comagent.cli.board import Board
    from comagent.cli.display import display_for
    from comagent.cli.report import end_document, print_end, print_ends, print_json

    by_id = {record.job_id: record for record in wanted}
    shards = sorted({record.shard for record in wanted})

    def board(ids: list[str]) -> Board:
        if len(ids) > 1:
            return Board("resumed jobs", ids, noun="job")
        record = by_id[ids[0]]
        from comagent.plan import paths_of

        tasks = list(paths_of(json.loads(record.process_doc)))
        return Board(f"{record.process_name}, job {record.job_id}", tasks, noun="task")

    def on_end(ends: "list[End]") -> None:
        if as_json:
            documents = [end_document(end) for end in ends]
            print_json(documents[0] if single and documents else documents)
        elif len(ends) == 1:
            print_end(ends[0])
        else:
            print_ends(ends)

    attended = attend(
        config,
        lambda client: [job.job_id for job in client.take_over(shards, list(by_id))],
        board=board,
        display=display_for(quiet=quiet),
        on_end=on_end,
    )
    others = len(by_id) - len(attended.ends)
    if others:
        say(f"{count(others, 'job')} went to another `comagent resume`")
    return attended
