"""What the engine asks of a store, and the values that go in and come out.

A store keeps the durable truth about jobs: their rows, the outcomes of their tasks, their events, and the order in
which all of it was committed. It holds no policy. Everything in it is ordered by a job's `seq`, never by a clock.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

Epoch = tuple[int, int]
"""(global epoch, regional epoch), compared lexicographically: a fencing token."""


class JobRow(NamedTuple):
    """A job as it is admitted. The three documents and the payload hash never change afterwards."""

    job_id: str
    tenant: str
    principal: str
    parent: str | None
    """The job that started this one."""
    shard: str
    process_name: str
    process_hash: str
    process_doc: bytes
    tools_doc: bytes
    inputs_doc: bytes
    root_path: str
    """The folder that names of Python tools and of files are relative to."""
    priority: int
    """A larger number is more urgent."""
    idem_key: str
    """Unique within the tenant."""
    payload_hash: str
    submitted_ms: int


class Outcome(NamedTuple):
    """What one task ended with. Inserted once, never overwritten."""

    task: str
    dispatch: str
    attempt: int
    status: str
    result: bytes | None
    """Canonical JSON, unless the value is a document."""
    document: str | None
    """Hash of the document that holds the value."""
    error: bytes | None
    started_ms: int
    ended_ms: int


class Event(NamedTuple):
    """Anything durable about a job that is not an outcome."""

    kind: str
    task: str | None
    body: bytes
    at_ms: int


class DocumentRow(NamedTuple):
    """A value kept by content outside the rows."""

    hash: str
    size: int
    """In bytes."""
    type: str


class JobCommit(NamedTuple):
    """Everything one job adds in one commit: all of it becomes durable, or nothing does."""

    job_id: str
    epoch: Epoch
    """The epoch of the owner who commits; the job's row must carry the same."""
    admit: JobRow | None = None
    """Makes the job. The rest of the commit belongs to the same transaction."""
    outcomes: Sequence[Outcome] = ()
    events: Sequence[Event] = ()
    documents: Sequence[DocumentRow] = ()
    """Documents that the outcomes and events name; one that is known already is left as it is."""
    status: str | None = None
    """The job's new status, if it changes. One that ends the job sets `ended_ms`, any other clears it."""
    error: bytes | None = None
    """Taken over together with `status`."""
    at_ms: int = 0


class Committed(NamedTuple):
    """The commit is durable."""

    seq: int
    """The job's last sequence number now."""


class Stale(NamedTuple):
    """Another owner has the job, or there is no such job: nothing of the commit was stored."""


class Exists(NamedTuple):
    """An admission met a job with the same id, or the same tenant and idempotency key. Nothing was stored."""

    job_id: str
    payload_hash: str
    """The same hash means the same submission again; another hash is a conflict."""


class Refused(NamedTuple):
    """The store can't take these rows, whoever sends them and however often. Nothing of the commit was stored."""

    problem: str


Verdict = Committed | Stale | Exists | Refused


class JobRecord(NamedTuple):
    """A job as it stands."""

    job_id: str
    tenant: str
    principal: str
    parent: str | None
    shard: str
    process_name: str
    process_hash: str
    root_path: str
    priority: int
    idem_key: str
    payload_hash: str
    status: str
    epoch: Epoch
    seq: int
    error: bytes | None
    submitted_ms: int
    ended_ms: int | None
    process_doc: bytes = b""
    """Empty in lists of jobs, as are the next two."""
    tools_doc: bytes = b""
    inputs_doc: bytes = b""


class ProgressRow(NamedTuple):
    """A committed outcome."""

    seq: int
    epoch: Epoch
    """The epoch of the owner who committed it."""
    outcome: Outcome


class EventRow(NamedTuple):
    """A committed event."""

    seq: int
    event: Event


class BatchRow(NamedTuple):
    """What one job added in one batch of one shard."""

    shard: str
    n: int
    job_id: str
    seq_from: int
    seq_to: int


class Store(ABC):
    """Durable rows about jobs.

    Every method blocks. One thread commits; any number may read meanwhile. Each answer is one consistent snapshot.
    Every method raises `StoreError` when the store can't be reached, read or written.
    """

    @abstractmethod
    def open(self) -> None:
        """Connect; create the schema where there is none, bring an older one up to date.

        Raises `StoreError`, and changes nothing, for data of another program, damaged data or a newer schema.
        """

    @abstractmethod
    def close(self) -> None:
        """Give everything back. Closing twice is fine."""

    @abstractmethod
    def commit(self, shard: str, n: int, commits: Sequence[JobCommit]) -> list[Verdict]:
        """Make batch `n` of `shard` durable in one transaction; verdicts come in the order of `commits`.

        A job appears at most once in a batch (`ValueError`). Each job is fenced by its epoch and judged for itself:
        whatever is wrong with one leaves the others untouched. A commit is Refused when a task in it has an outcome
        already. An admission is Stale when its shard was taken over at a newer epoch.

        Sequence numbers follow the order outcomes, events. Every `Committed` raises `seq` by the number of its rows,
        but at least by one. So a caller who gets `StoreError`, which leaves open what happened, reads `seq`: the
        expected value means committed, the old one not.
        """

    @abstractmethod
    def take_over(
        self, shards: Sequence[str], *, to: str, epoch: Epoch, job_ids: Sequence[str] | None = None
    ) -> list[str]:
        """Give the unfinished jobs of `shards` to shard `to` at `epoch`, in one transaction; their ids in order.

        With `job_ids`, only those of them. Jobs with this epoch or a newer one stay where they are. Afterwards
        nobody with an older epoch can commit to the jobs taken, nor admit a job to `to`; if all jobs are taken, nor to
        `shards`. Takes nothing when `to` itself is known at a newer epoch.
        """

    @abstractmethod
    def seq(self, job_id: str) -> int | None:
        """The job's last sequence number; None if there is no such job."""

    @abstractmethod
    def job(self, job_id: str) -> JobRecord | None:
        """One job with its documents."""

    @abstractmethod
    def jobs(
        self,
        *,
        shard: str | None = None,
        status: str | None = None,
        tenant: str | None = None,
        before: str | None = None,
        limit: int = 100,
    ) -> list[JobRecord]:
        """Jobs without their documents, latest id first. `before` is the last id of the page before."""

    @abstractmethod
    def unfinished(self, shards: Sequence[str] | None = None) -> list[str]:
        """Ids, in order, of the jobs that have not ended: those of these shards, or all."""

    @abstractmethod
    def progress(self, job_id: str) -> list[ProgressRow]:
        """All outcomes of a job in order of `seq`."""

    @abstractmethod
    def outcome(self, job_id: str, task: str) -> ProgressRow | None:
        """One task's outcome."""

    @abstractmethod
    def events(self, job_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[EventRow]:
        """Events of a job in order of `seq`."""

    @abstractmethod
    def stream(self, job_id: str, *, after_seq: int = 0, limit: int = 1000) -> list[ProgressRow | EventRow]:
        """Outcomes and events of a job, merged in order of `seq`. No row can appear later below the last one."""

    @abstractmethod
    def attempts(self, job_id: str) -> dict[str, int]:
        """Failed attempts by task: the number of its `attempt_failed` events."""

    @abstractmethod
    def document(self, digest: str) -> DocumentRow | None:
        """Size and type of a document, by its hash, that a commit has named."""

    @abstractmethod
    def batches(self, shard: str, *, after_n: int = 0, limit: int = 1000) -> list[BatchRow]:
        """What the batches after `after_n` added, in order of (n, job id)."""

    @abstractmethod
    def last_batch(self, shard: str) -> int:
        """The highest batch number of a shard, 0 if it has none. Final for older owners once they are fenced out."""
