"""Jobs that are written into a store, as far as a scheduler would have come with them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from comagent import spec
from comagent.config import Config
from comagent.coordination import EmbeddedCoordination, Lease, OwnedProcess, Owner, boot_id
from comagent.ids import uuid7
from comagent.store import Committed, Event, JobCommit, JobRow, Outcome, Store, store_at
from comagent.submission import prepare, submission

STARTED_MS = 1_767_225_600_000
EPOCH = (1, 1)


class Home:
    """A `COMAGENT_HOME` with jobs and leases of runs that never were."""

    def __init__(self, folder: Path):
        self.config = Config(home=folder)
        folder.mkdir(exist_ok=True)
        self.store: Store = store_at(self.config.store_url)
        self.store.open()
        self.coordination = EmbeddedCoordination(self.config.coordination_path)
        self.coordination.open()
        self._batch = 0

    def close(self) -> None:
        self.store.close()
        self.coordination.close()

    def submit(self, document: Mapping[str, Any], *, shard: str = "run-1", started_ms: int = STARTED_MS) -> str:
        """A job that runs and has no outcomes; its id."""
        made = submission(prepare(spec.parse(document)), {}, job_id=uuid7())
        row = JobRow(
            made.job_id, made.tenant, made.principal, None, shard, made.process_name, made.process_hash,
            made.process_doc, made.tools_doc, made.inputs_doc, made.root_path, made.priority, made.idem_key,
            made.payload_hash, started_ms,
        )  # fmt: skip
        self._commit(JobCommit(made.job_id, EPOCH, admit=row, status="running", at_ms=started_ms))
        return made.job_id

    def end(
        self,
        job_id: str,
        *outcomes: Outcome,
        events: Sequence[Event] = (),
        status: str | None = None,
        at_ms: int = STARTED_MS + 2_000,
    ) -> None:
        """Adds outcomes and events; with a `status` that ends a job, ends it."""
        self._commit(JobCommit(job_id, EPOCH, outcomes=outcomes, events=events, status=status, at_ms=at_ms))

    def lease(self, shard: str, *processes: OwnedProcess, boot: str | None = None) -> Lease:
        """The lease of a run with these processes."""
        lease = Lease(shard, EPOCH, "scheduler", "supervisor", 0, Owner(boot or boot_id(), processes))
        assert self.coordination.claim(lease, expected=None)
        return lease

    def _commit(self, commit: JobCommit) -> None:
        self._batch += 1
        (verdict,) = self.store.commit("run-1", self._batch, [commit])
        assert isinstance(verdict, Committed), verdict


def succeeded(task: str, value: Any, *, attempt: int = 1, after_ms: int = 100) -> Outcome:
    at_ms = STARTED_MS + after_ms
    return Outcome(task, "d", attempt, "succeeded", json.dumps(value).encode(), None, None, at_ms - 50, at_ms)


def ended(task: str, status: str, message: str, *, kind: str = "ValueError", attempt: int = 1) -> Outcome:
    """An outcome that is no success."""
    error = json.dumps({"type": kind, "message": message}).encode()
    return Outcome(task, "d", attempt, status, None, None, error, STARTED_MS + 100, STARTED_MS + 400)


def attempt_failed(task: str, message: str, *, attempt: int = 1) -> Event:
    error = {"type": "ValueError", "message": message}
    times = {"started_ms": STARTED_MS + 100, "ended_ms": STARTED_MS + 200}
    body = {"attempt": attempt, "error": error, "retry_in_s": 0.5, **times}
    return Event("attempt_failed", task, json.dumps(body).encode(), STARTED_MS + 200)
