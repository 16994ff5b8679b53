"""What can be seen of a job from outside: its status, its bitmap, what runs, and how it ended."""

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from comagent.plan import OUTPUTS, paths_of
from comagent.protocol import Large, Wire
from comagent.states import JOB_ENDS, TASK_BY_LABEL, TASK_LABELS, Task
from comagent.store.base import EventRow, JobRecord, ProgressRow
from comagent.values import JSON


class JobView:
    """A job as its supervisor knows it."""

    __slots__ = ("bitmap", "counts", "error", "job_id", "known", "result", "running", "seq", "status", "total")

    def __init__(self, job_id: str, total: int, *, known: bool):
        self.job_id = job_id
        self.total = total
        """Number of tasks."""
        self.known = known
        """Nothing of the job was missed."""
        self.status = "running"
        self.seq = 0
        self.bitmap = bytearray((total + 7) // 8)
        """One bit per task, set when it has ended; bit `i % 8` of byte `i // 8` is task `i`."""
        self.counts = [0] * len(TASK_LABELS)
        """How many tasks ended in each state."""
        self.running: dict[int, tuple[str, int]] = {}
        """Path and attempt of tasks that were sent to agents, as last heard."""
        self.result: Wire | None = None
        self.error: bytes | None = None

    def started(self, tasks: Iterable[tuple[int, str, int]]) -> None:
        for index, path, attempt in tasks:
            if not self._has(index):
                self.running[index] = (path, attempt)

    def ended(self, indices: Sequence[int], states: bytes, *, seq: int) -> None:
        bitmap, total = self.bitmap, self.total
        for index, state in zip(indices, states, strict=True):
            if index < total and not self._has(index):
                bitmap[index >> 3] |= 1 << (index & 7)
                self.counts[state] += 1
        if self.running:
            for index in indices:
                self.running.pop(index, None)
        self.seq = max(self.seq, seq)

    def _has(self, index: int) -> bool:
        return index < self.total and bool(self.bitmap[index >> 3] & (1 << (index & 7)))

    @property
    def over(self) -> bool:
        return self.status in JOB_ENDS

    @property
    def done(self) -> int:
        """How many tasks have ended."""
        return sum(self.counts)

    def summary(self) -> dict[str, int]:
        """How many tasks ended in each state, those that occur, and how many have not ended."""
        named = {TASK_LABELS[state]: count for state, count in enumerate(self.counts) if count}
        left = self.total - self.done
        return {**named, "unfinished": left} if left else named


class TaskEnd(NamedTuple):
    """A committed outcome, or an attempt that failed and is tried again."""

    seq: int
    path: str
    status: str
    attempt: int
    started_ms: int
    ended_ms: int
    error: dict[str, Any] | None
    retry_in_s: float | None


class Progress(NamedTuple):
    """What is new about a job."""

    status: str
    total: int
    done: int
    counts: dict[str, int]
    running: list[tuple[str, int]]
    ends: list[TaskEnd]
    seq: int
    """Ask for what comes after this."""


def ended_view(record: JobRecord, outcomes: Sequence[ProgressRow]) -> JobView:
    """The view of a job from the store."""
    index = {path: number for number, path in enumerate(paths_of(json.loads(record.process_doc)))}
    view = JobView(record.job_id, len(index), known=True)
    view.status = record.status
    for row in outcomes:
        if row.outcome.task == OUTPUTS:
            view.result = row.outcome.result if row.outcome.document is None else Large(row.outcome.document, 0, JSON)
        elif row.outcome.task in index:
            view.ended([index[row.outcome.task]], bytes([TASK_BY_LABEL[row.outcome.status]]), seq=row.seq)
    view.seq = record.seq
    view.error = record.error
    return view


def progress_of(view: JobView, rows: Sequence[ProgressRow | EventRow]) -> Progress:
    """What clients are told after `rows` were committed."""
    ends: list[TaskEnd] = []
    seq = 0
    for row in rows:
        seq = row.seq
        if isinstance(row, ProgressRow):
            done = row.outcome
            if done.task != OUTPUTS or done.status != TASK_LABELS[Task.SUCCEEDED]:
                error = None if done.error is None else json.loads(done.error)
                end = TaskEnd(seq, done.task, done.status, done.attempt, done.started_ms, done.ended_ms, error, None)
                ends.append(end)
        elif row.event.kind == "attempt_failed":
            body = json.loads(row.event.body)
            ends.append(
                TaskEnd(
                    seq,
                    row.event.task or "",
                    "retrying",
                    body["attempt"],
                    body["started_ms"],
                    body["ended_ms"],
                    body["error"],
                    body["retry_in_s"],
                )
            )
    running = list(view.running.values())
    return Progress(view.status, view.total, view.done, view.summary(), running, ends, seq)


def failures_of(outcomes: Sequence[ProgressRow]) -> list[tuple[str, str, str]]:
    """(path, status, what happened) of the tasks that failed or ran out of time."""
    failed = []
    for outcome in (row.outcome for row in outcomes):
        if outcome.status in ("failed", "timed_out") and outcome.error is not None:
            error = json.loads(outcome.error)
            failed.append((outcome.task, outcome.status, f"{error['type']}: {error['message']}"))
    return failed
