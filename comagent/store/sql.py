"""The store in an SQL database."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from sqlalchemy import (
    CompoundSelect,
    Connection,
    Engine,
    QueuePool,
    Select,
    Table,
    and_,
    create_engine,
    func,
    make_url,
    null,
    select,
    tuple_,
    union_all,
    update,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError

from comagent.errors import StoreError
from comagent.sqlite import connect, explained, open_file, store_error, transaction
from comagent.states import JOB_ENDS
from comagent.store import schema
from comagent.store.base import (
    BatchRow,
    Committed,
    DocumentRow,
    Epoch,
    Event,
    EventRow,
    Exists,
    JobCommit,
    JobRecord,
    JobRow,
    Outcome,
    ProgressRow,
    Refused,
    Stale,
    Store,
    Verdict,
)

# The hot path speaks to the driver: SQLAlchemy would cost three times as much for a row.
_MINE = "WHERE job_id = ? AND global_epoch = ? AND regional_epoch = ? RETURNING seq"
_FENCE = f"UPDATE jobs SET seq = seq + ? {_MINE}"
_FENCE_WITH_STATUS = f"UPDATE jobs SET seq = seq + ?, status = ?, error = ?, ended_ms = ? {_MINE}"
_ADMIT = """
    INSERT INTO jobs (job_id, tenant, principal, parent, shard, process_name, process_hash, root_path, priority,
        idem_key, payload_hash, status, global_epoch, regional_epoch, seq, error, submitted_ms, ended_ms)
    SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?
    WHERE NOT EXISTS (SELECT 1 FROM shards WHERE shard = ? AND (global_epoch, regional_epoch) > (?, ?))
    ON CONFLICT DO NOTHING"""
_EXISTING = "SELECT job_id, payload_hash FROM jobs WHERE job_id = ? OR (tenant = ? AND idem_key = ?)"
_SUBMISSION = "INSERT INTO submissions (job_id, process_doc, tools_doc, inputs_doc) VALUES (?, ?, ?, ?)"

# Many rows go into one statement. After each the driver lets other threads run, and beside a busy one it waits 5 ms for
# its next turn: a thousand rows took 3.4 s in `executemany`, and 0.03 s in two statements.
_ROWS = tuple(2**power for power in range(9, -1, -1))
"""Numbers of rows in a statement: few enough to stay prepared."""


def _inserts(table: Table, tail: str = "") -> dict[int, str]:
    """By number of rows. Values come in the order of the table's columns."""
    row = f"({', '.join('?' * len(table.columns))})"
    head = f"INSERT INTO {table.name} ({', '.join(table.columns.keys())}) VALUES"
    return {rows: f"{head} {', '.join([row] * rows)} {tail}" for rows in _ROWS}


_OUTCOMES = _inserts(schema.progress)
_EVENTS = _inserts(schema.events)
_DOCUMENTS = _inserts(schema.documents, "ON CONFLICT DO NOTHING")
_BATCHES = _inserts(schema.batches)

_UNSTORABLE = (
    sqlite3.IntegrityError,
    sqlite3.DataError,
    sqlite3.InterfaceError,
    sqlite3.ProgrammingError,
    OverflowError,
    UnicodeError,
)
"""Raised for a row that is wrong in itself. Whatever else SQLite raises is about the file."""

_jobs, _progress, _events = schema.jobs.c, schema.progress.c, schema.events.c
_JOB = (
    _jobs.job_id,
    _jobs.tenant,
    _jobs.principal,
    _jobs.parent,
    _jobs.shard,
    _jobs.process_name,
    _jobs.process_hash,
    _jobs.root_path,
    _jobs.priority,
    _jobs.idem_key,
    _jobs.payload_hash,
    _jobs.status,
    _jobs.global_epoch,
    _jobs.regional_epoch,
    _jobs.seq,
    _jobs.error,
    _jobs.submitted_ms,
    _jobs.ended_ms,
)
_SUBMITTED = (schema.submissions.c.process_doc, schema.submissions.c.tools_doc, schema.submissions.c.inputs_doc)
_OUTCOME = (
    _progress.seq,
    _progress.global_epoch,
    _progress.regional_epoch,
    _progress.task,
    _progress.dispatch,
    _progress.attempt,
    _progress.status,
    _progress.result,
    _progress.document,
    _progress.error,
    _progress.started_ms,
    _progress.ended_ms,
)
_EVENT = (_events.seq, _events.kind, _events.task, _events.body, _events.at_ms)


class SqlStore(Store):
    """A store in one SQLite file, which several processes of one machine may share. Not for network file systems."""

    def __init__(self, url: str, *, timeout_s: float = 30.0) -> None:
        self._path = Path(make_url(url).database or "")
        self._timeout_s = timeout_s
        """How long to wait for other processes' writes before giving up."""
        self._writing = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._readers: Engine | None = None

    def open(self) -> None:
        if self._writer is None:
            self._writer = open_file(self._path, schema.SQLITE_FORMAT, timeout_s=self._timeout_s)
            self._readers = create_engine(
                "sqlite://", creator=lambda: connect(self._path, self._timeout_s), poolclass=QueuePool
            )

    def close(self) -> None:
        with self._writing:
            if self._readers is not None:
                self._readers.dispose()
            if self._writer is not None:
                self._writer.close()
            self._readers = self._writer = None

    def commit(self, shard: str, n: int, commits: Sequence[JobCommit]) -> list[Verdict]:
        # Always in the same order, or two owners who commit to the same jobs could wait for each other.
        ordered = sorted(commits, key=lambda commit: commit.job_id)
        if len({commit.job_id for commit in ordered}) < len(ordered):
            raise ValueError("a job appears at most once in a batch")
        with self._writing:
            if self._writer is None:
                raise self._closed()
            with explained(self._path):
                try:
                    with transaction(self._writer):
                        verdicts = _write(self._writer, shard, n, ordered)
                except _UNSTORABLE:
                    with transaction(self._writer):
                        verdicts = _write_one_by_one(self._writer, shard, n, ordered)
        return [verdicts[commit.job_id] for commit in commits]

    def take_over(
        self, shards: Sequence[str], *, to: str, epoch: Epoch, job_ids: Sequence[str] | None = None
    ) -> list[str]:
        new = tuple_(*epoch)
        owners = schema.shards.c
        raised = insert(schema.shards)
        raised = raised.on_conflict_do_update(
            index_elements=[owners.shard],
            set_={"global_epoch": epoch[0], "regional_epoch": epoch[1]},
            where=tuple_(owners.global_epoch, owners.regional_epoch) < new,
        )
        newer = select(owners.shard).where(owners.shard == to, tuple_(owners.global_epoch, owners.regional_epoch) > new)
        taken = (
            update(schema.jobs)
            .where(
                _jobs.shard.in_(shards),
                _jobs.ended_ms.is_(None),
                tuple_(_jobs.global_epoch, _jobs.regional_epoch) < new,
            )
            .values(shard=to, global_epoch=epoch[0], regional_epoch=epoch[1])
            .returning(_jobs.job_id)
        )
        if job_ids is not None:
            taken = taken.where(_jobs.job_id.in_(job_ids))
        fenced = sorted({to, *shards} if job_ids is None else {to})
        with self._writing, self._connection() as connection:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
            if connection.scalar(newer) is not None:
                return []
            connection.execute(
                raised,
                [{"shard": shard, "global_epoch": epoch[0], "regional_epoch": epoch[1]} for shard in fenced],
            )
            ids = sorted(connection.scalars(taken))
            connection.commit()
        return ids

    def seq(self, job_id: str) -> int | None:
        with self._connection() as connection:
            found: int | None = connection.scalar(select(_jobs.seq).where(_jobs.job_id == job_id))
        return found

    def job(self, job_id: str) -> JobRecord | None:
        both = schema.jobs.join(schema.submissions, _jobs.job_id == schema.submissions.c.job_id)
        rows = self._rows(select(*_JOB, *_SUBMITTED).select_from(both).where(_jobs.job_id == job_id))
        return _record(rows[0]) if rows else None

    def jobs(
        self,
        *,
        shard: str | None = None,
        status: str | None = None,
        tenant: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        query = select(*_JOB).order_by(_jobs.job_id.desc()).limit(limit)
        for column, wanted in ((_jobs.shard, shard), (_jobs.status, status), (_jobs.tenant, tenant)):
            if wanted is not None:
                query = query.where(column == wanted)
        if before is not None:
            query = query.where(_jobs.job_id < before)
        return [_record(row) for row in self._rows(query)]

    def unfinished(self, shards: Sequence[str] | None = None) -> list[str]:
        query = select(_jobs.job_id).where(_jobs.ended_ms.is_(None)).order_by(_jobs.job_id)
        if shards is not None:
            query = query.where(_jobs.shard.in_(shards))
        return [job_id for (job_id,) in self._rows(query)]

    def progress(self, job_id: str) -> list[ProgressRow]:
        query = select(*_OUTCOME).where(_progress.job_id == job_id).order_by(_progress.seq)
        return [_progress_row(row) for row in self._rows(query)]

    def outcome(self, job_id: str, task: str) -> ProgressRow | None:
        rows = self._rows(select(*_OUTCOME).where(_progress.job_id == job_id, _progress.task == task))
        return _progress_row(rows[0]) if rows else None

    def events(self, job_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[EventRow]:
        query = select(*_EVENT).where(_events.job_id == job_id, _events.seq > after_seq).order_by(_events.seq)
        return [EventRow(seq, Event(*event)) for seq, *event in self._rows(query.limit(limit))]

    def stream(self, job_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[ProgressRow | EventRow]:
        # One statement, hence one snapshot: with two, a row could be committed between them and be missed for ever.
        outcomes = select(*_OUTCOME, null().label("kind"), null().label("body"), null().label("at_ms"))
        events = select(
            _events.seq,
            null(),
            null(),
            _events.task,
            *(null() for _ in Outcome._fields[1:]),
            _events.kind,
            _events.body,
            _events.at_ms,
        )
        merged = union_all(
            outcomes.where(_progress.job_id == job_id, _progress.seq > after_seq),
            events.where(_events.job_id == job_id, _events.seq > after_seq),
        )
        rows = self._rows(merged.order_by("seq").limit(limit))
        return [
            _progress_row(row[:12]) if row.kind is None else EventRow(row[0], Event(row.kind, row[3], row[-2], row[-1]))
            for row in rows
        ]

    def attempts(self, job_id: str) -> dict[str, int]:
        failed = and_(_events.job_id == job_id, _events.kind == "attempt_failed", _events.task.is_not(None))
        query = select(_events.task, func.count()).where(failed).group_by(_events.task)
        return dict(self._rows(query))

    def document(self, digest: str) -> DocumentRow | None:
        columns = schema.documents.c
        rows = self._rows(select(columns.hash, columns.size, columns.type).where(columns.hash == digest))
        return DocumentRow(*rows[0]) if rows else None

    def batches(self, shard: str, *, after_n: int = 0, limit: int = 1000) -> list[BatchRow]:
        columns = schema.batches.c
        query = select(schema.batches).where(columns.shard == shard, columns.n > after_n)
        return [BatchRow(*row) for row in self._rows(query.order_by(columns.n, columns.job_id).limit(limit))]

    def last_batch(self, shard: str) -> int:
        with self._connection() as connection:
            last = connection.scalar(select(func.max(schema.batches.c.n)).where(schema.batches.c.shard == shard))
        return last or 0

    def _rows(self, query: Select[Any] | CompoundSelect[Any]) -> Sequence[Any]:
        with self._connection() as connection:
            return connection.execute(query).all()

    @contextmanager
    def _connection(self) -> Iterator[Connection]:
        if self._readers is None:
            raise self._closed()
        try:
            with self._readers.connect() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise store_error(self._path, getattr(error, "orig", error)) from error
        except sqlite3.Error as error:  # of the driver's own connect
            raise store_error(self._path, error) from error

    def _closed(self) -> StoreError:
        return StoreError(f"{self._path} is closed", "Open the store before using it.")


def _write(connection: sqlite3.Connection, shard: str, n: int, commits: Sequence[JobCommit]) -> dict[str, Verdict]:
    """All rows of these commits, inside an open transaction. The first thing done for each job is its fence."""
    verdicts: dict[str, Verdict] = {}
    outcomes: list[tuple[Any, ...]] = []
    events: list[tuple[Any, ...]] = []
    documents: list[DocumentRow] = []
    batches: list[BatchRow] = []
    for commit in commits:
        job_id, (global_epoch, regional_epoch) = commit.job_id, commit.epoch
        rows = len(commit.outcomes) + len(commit.events) or 1
        verdict = _admit(connection, commit, rows, commit.admit) if commit.admit else _fence(connection, commit, rows)
        verdicts[job_id] = verdict
        if not isinstance(verdict, Committed):
            continue
        seq = verdict.seq - rows + 1
        batches.append(BatchRow(shard, n, job_id, seq, verdict.seq))
        outcomes += [
            (job_id, at, global_epoch, regional_epoch, *outcome) for at, outcome in enumerate(commit.outcomes, seq)
        ]
        events += [(job_id, at, *event) for at, event in enumerate(commit.events, seq + len(commit.outcomes))]
        documents += commit.documents
    _insert(connection, _OUTCOMES, outcomes)
    _insert(connection, _EVENTS, events)
    _insert(connection, _DOCUMENTS, documents)
    _insert(connection, _BATCHES, batches)
    return verdicts


def _write_one_by_one(
    connection: sqlite3.Connection, shard: str, n: int, commits: Sequence[JobCommit]
) -> dict[str, Verdict]:
    """The same after a batch has failed: still one transaction, but what is wrong with a job undoes only that job."""
    verdicts: dict[str, Verdict] = {}
    for commit in commits:
        connection.execute("SAVEPOINT job")
        try:
            verdicts |= _write(connection, shard, n, [commit])
        except _UNSTORABLE as error:
            connection.execute("ROLLBACK TO job")
            verdicts[commit.job_id] = Refused(f"its rows cannot be stored: {error}")
        connection.execute("RELEASE job")
    return verdicts


def _insert(connection: sqlite3.Connection, statements: dict[int, str], rows: Sequence[tuple[Any, ...]]) -> None:
    start = 0
    for size, statement in statements.items():
        while len(rows) - start >= size:
            connection.execute(statement, tuple(chain.from_iterable(rows[start : start + size])))
            start += size


def _fence(connection: sqlite3.Connection, commit: JobCommit, rows: int) -> Verdict:
    mine = (commit.job_id, *commit.epoch)
    if commit.status is None:
        found = connection.execute(_FENCE, (rows, *mine)).fetchone()
    else:
        change = (commit.status, commit.error, _ended_ms(commit))
        found = connection.execute(_FENCE_WITH_STATUS, (rows, *change, *mine)).fetchone()
    return Committed(found[0]) if found else Stale()


def _admit(connection: sqlite3.Connection, commit: JobCommit, rows: int, job: JobRow) -> Verdict:
    status = commit.status or "pending"
    state = (status, *commit.epoch, rows, commit.error, job.submitted_ms, _ended_ms(commit))
    row = (*job[:7], *job[10:14], *state)
    if connection.execute(_ADMIT, (*row, job.shard, *commit.epoch)).rowcount == 1:
        connection.execute(_SUBMISSION, (job.job_id, job.process_doc, job.tools_doc, job.inputs_doc))
        return Committed(rows)
    found = connection.execute(_EXISTING, (job.job_id, job.tenant, job.idem_key)).fetchone()
    return Exists(*found) if found else Stale()


def _ended_ms(commit: JobCommit) -> int | None:
    return commit.at_ms if commit.status in JOB_ENDS else None


def _record(row: Sequence[Any]) -> JobRecord:
    return JobRecord(*[*row[:12], (row[12], row[13]), *row[14:]])


def _progress_row(row: Sequence[Any]) -> ProgressRow:
    seq, global_epoch, regional_epoch, *outcome = row
    return ProgressRow(seq, (global_epoch, regional_epoch), Outcome._make(outcome))
