"""A store in memory, for the model of the engine."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from comagent.commits import restored
from comagent.events import Restored
from comagent.plan import Plan
from comagent.protocol import Epoch
from comagent.states import JOB_ENDS
from comagent.store.base import (
    Committed,
    EventRow,
    Exists,
    JobCommit,
    JobRecord,
    JobRow,
    ProgressRow,
    Refused,
    Stale,
    Verdict,
)


@dataclass
class _Entry:
    record: JobRecord
    outcomes: dict[str, ProgressRow] = field(default_factory=dict)
    events: list[EventRow] = field(default_factory=list)


class ModelStore:
    """Keeps the promises of `Store` that the engine relies on, in memory."""

    fenced = True
    """Whether it turns away those who were replaced; a store that does not is what tests plant."""

    def __init__(self) -> None:
        self.jobs: dict[str, _Entry] = {}

    def commit(self, commits: Sequence[JobCommit], refused: frozenset[str]) -> list[Verdict]:
        return [self._commit(commit, commit.job_id in refused) for commit in commits]

    def _commit(self, commit: JobCommit, refused: bool) -> Verdict:
        entry = self.jobs.get(commit.job_id)
        admit = commit.admit
        if admit is not None:
            if entry is not None:
                return Exists(commit.job_id, entry.record.payload_hash)
            entry = _Entry(_record(admit, commit.epoch))
        elif entry is None or (self.fenced and entry.record.epoch != commit.epoch):
            return Stale()
        if refused:
            return Refused("the store does not take it")
        for outcome in commit.outcomes:
            assert outcome.task not in entry.outcomes, f"{outcome.task} has two outcomes"
        assert admit is not None or entry.record.status not in JOB_ENDS, "the job has ended"
        seq = entry.record.seq
        for outcome in commit.outcomes:
            seq += 1
            entry.outcomes[outcome.task] = ProgressRow(seq, commit.epoch, outcome)
        for event in commit.events:
            seq += 1
            entry.events.append(EventRow(seq, event))
        seq = max(seq, entry.record.seq + 1)
        entry.record = entry.record._replace(seq=seq)
        if commit.status is not None:
            ended = commit.at_ms if commit.status in JOB_ENDS else None
            entry.record = entry.record._replace(status=commit.status, error=commit.error, ended_ms=ended)
        self.jobs[commit.job_id] = entry
        return Committed(seq)

    def take_over(self, epoch: Epoch) -> list[str]:
        taken = sorted(j for j, e in self.jobs.items() if e.record.ended_ms is None and e.record.epoch < epoch)
        for job_id in taken:
            self.jobs[job_id].record = self.jobs[job_id].record._replace(epoch=epoch)
        return taken

    def read(self, job_id: str, plan: Plan, now_ms: float) -> Restored:
        entry = self.jobs[job_id]
        return restored(
            entry.record, plan, progress=entry.outcomes.values(), events=entry.events, sizes={}, now_ms=now_ms
        )


def _record(admit: JobRow, epoch: Epoch) -> JobRecord:
    return JobRecord(
        admit.job_id,
        admit.tenant,
        admit.principal,
        admit.parent,
        admit.shard,
        admit.process_name,
        admit.process_hash,
        admit.root_path,
        admit.priority,
        admit.idem_key,
        admit.payload_hash,
        "pending",
        epoch,
        0,
        None,
        admit.submitted_ms,
        None,
        admit.process_doc,
        admit.tools_doc,
        admit.inputs_doc,
    )
