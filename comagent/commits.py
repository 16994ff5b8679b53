"""Between the machine and the store: what a step adds as rows, and what rows make of a job after a takeover."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from comagent.events import Change, Restored
from comagent.job import Ended, Happened, Job
from comagent.plan import Plan
from comagent.protocol import Epoch, Large, Row
from comagent.retry import delay_s
from comagent.states import TASK_BY_LABEL, TASK_LABELS, Task
from comagent.store.base import DocumentRow, Event, EventRow, JobCommit, JobRecord, JobRow, Outcome, ProgressRow
from comagent.values import JSON

ATTEMPT_FAILED = "attempt_failed"
STOPPING = "stopping"


def job_commit(change: Change, *, epoch: Epoch, admit: JobRow | None, at_ms: int) -> JobCommit:
    """What `change` adds to the store."""
    job = change.job
    documents: list[DocumentRow] = []
    return JobCommit(
        job_id=job.job_id,
        epoch=epoch,
        admit=admit,
        outcomes=_outcomes(job.plan, change.rows, documents),
        events=[_event(job.plan, happened) for happened in change.events],
        documents=documents,
        status=change.status,
        error=job.error,
        at_ms=at_ms,
    )


def _outcomes(plan: Plan, ended: Sequence[Ended], documents: list[DocumentRow]) -> list[Outcome]:
    ids, labels = plan.ids, TASK_LABELS
    outcomes = []
    for dispatch, (index, attempt, status, started_ms, ended_ms, payload) in ended:
        result = document = error = None
        if status == Task.SUCCEEDED:
            if isinstance(payload, Large):
                document = payload.hash
                documents.append(DocumentRow(payload.hash, payload.size, payload.type))
            else:
                result = payload
        else:
            error = payload
        start, end = int(started_ms), int(ended_ms)
        outcomes.append(Outcome(ids[index], dispatch, attempt, labels[status], result, document, error, start, end))  # type: ignore[arg-type]
    return outcomes


def _event(plan: Plan, happened: Happened) -> Event:
    task = None if happened.task is None else plan.ids[happened.task]
    body = json.dumps(happened.body, ensure_ascii=False, separators=(",", ":")).encode()
    return Event(happened.kind, task, body, int(happened.at_ms))


def restored(
    record: JobRecord,
    plan: Plan,
    *,
    progress: Iterable[ProgressRow],
    events: Iterable[EventRow],
    sizes: dict[str, DocumentRow],
    now_ms: float,
) -> Restored:
    """A job as the store tells it. `sizes` has the documents that its outcomes name."""
    job = Job(record.job_id, plan, inputs=record.inputs_doc, priority=record.priority)
    rows = [_row(plan, row.outcome, sizes) for row in progress]
    failures: dict[int, int] = {}
    due: dict[int, float] = {}
    stopping: str | None = None
    for event in (row.event for row in events):
        if event.kind == ATTEMPT_FAILED and event.task is not None:
            task = plan.index[event.task]
            failures[task] = failures.get(task, 0) + 1
            policy = plan.policies[plan.policy[task]]
            wait_s = delay_s(policy.retry, failures[task], key=f"{record.job_id}/{event.task}")
            due[task] = event.at_ms + wait_s * 1000
        elif event.kind == STOPPING:
            body: dict[str, Any] = json.loads(event.body)
            stopping = str(body["ending"])
    job.restore(rows, failures, stopping)
    deadline_ms = None if plan.timeout_s is None else record.submitted_ms + plan.timeout_s * 1000
    retries = {task: at_ms for task, at_ms in due.items() if at_ms > now_ms}
    return Restored(job, deadline_ms, retries)


def _row(plan: Plan, outcome: Outcome, sizes: dict[str, DocumentRow]) -> Row:
    payload: Any = outcome.error
    if outcome.document is not None:
        size = sizes.get(outcome.document, DocumentRow(outcome.document, 0, JSON))
        payload = Large(size.hash, size.size, size.type)
    elif outcome.result is not None:
        payload = outcome.result
    index = plan.index[outcome.task]
    return Row(index, outcome.attempt, TASK_BY_LABEL[outcome.status], outcome.started_ms, outcome.ended_ms, payload)
