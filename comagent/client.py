"""The client: submits jobs, waits for them, watches them. It starts nothing."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from comagent import builder, spec
from comagent.actors.names import NAMESPACE
from comagent.coordination.base import Lease
from comagent.errors import (
    CannotConnectError,
    ComAgentError,
    JobFailedError,
    JobTimeoutError,
    StaleEpochError,
    UnknownJobError,
)
from comagent.ids import uuid7
from comagent.job_view import JobView, Progress
from comagent.nesting import with_processes
from comagent.protocol import Large, Wire
from comagent.spec import Process
from comagent.submission import Prepared, Submission, building, prepare, prepare_file, submission
from comagent.values import decode

PATIENCE_S = 60.0
"""How long to look for actors that are being replaced before giving up."""
PAUSE_S = 0.1
POLL_S = 20.0

Source = str | Path | Mapping[str, Any] | builder.Process | Process | Prepared
"""What can be submitted: a path to a process file, its document, a process, or one that was checked already."""


class Job:
    """A job that was submitted."""

    def __init__(self, client: "Client", job_id: str):
        self._client = client
        self.job_id = job_id

    def result(self, timeout: float | None = None) -> Any:
        """The outputs of the job, by name, when it has ended.

        Raises `JobFailedError` if it did not succeed, `JobTimeoutError` after `timeout` seconds (the job goes on then).
        """
        view = self.wait(timeout)
        if view is None:
            raise JobTimeoutError(self.job_id, timeout or 0.0)
        if view.status != "succeeded":
            failures = self._client.failures(self.job_id)
            told = tuple(f'task "{path}": {what}' for path, _, what in failures)
            raise JobFailedError(self.job_id, view.status, told)
        return self._client.value(view.result)

    def wait(self, timeout: float | None = None) -> JobView | None:
        """What can be seen of the job once it has ended, None after `timeout` seconds."""
        return self._client.wait_any([self], timeout).get(self.job_id)

    def view(self) -> JobView:
        """What can be seen of the job now."""
        return self._client.view(self.job_id)

    @property
    def status(self) -> str:
        return self.view().status

    def cancel(self) -> None:
        """Asks for the job to be cancelled. One that has ended stays as it is."""
        self._client.cancel(self.job_id)

    def progress(self, after_seq: int = 0) -> Iterator[Progress]:
        """What happens to the job, from its begin or after `after_seq` until its end, as it is committed."""
        seq = after_seq
        while True:
            news = self._client.progress(self.job_id, seq, POLL_S)
            seq = max(seq, news.seq)
            yield news
            if news.status in _ENDS and not news.ends:
                return

    def __repr__(self) -> str:
        return f"Job({self.job_id!r})"


_ENDS = frozenset({"succeeded", "failed", "cancelled", "timed_out", "over_budget"})


class Client:
    """A connection to a shard. Use it as a context manager, or `close` it."""

    def __init__(self, find: Callable[[], Lease | None], close: Callable[[], None]):
        self._find = find
        self._close = close
        self._handles: dict[str, Any] = {}
        self._prepared: dict[int, tuple[Process, Prepared]] = {}
        """By identity of the process, which is kept so that it stays the only one with its identity."""
        self._sent: set[tuple[str, str]] = set()

    def submit(
        self,
        source: Source,
        inputs: Mapping[str, Any] | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Job:
        """Submits a process: a path to its file, the document itself, or a `Process`. The job is durable on return.

        Raises `ProcessError` for what is wrong with the process or the inputs, `BusyError` if there is no room now.
        """
        (job,) = self.submit_many([(source, inputs or {})], idempotency_keys=[idempotency_key])
        return job

    def submit_many(
        self,
        jobs: Sequence[tuple[Source, Mapping[str, Any]]],
        *,
        idempotency_keys: Sequence[str | None] | None = None,
    ) -> list[Job]:
        """Submits many (process, inputs) in one message."""
        keys = idempotency_keys or [None] * len(jobs)
        submissions = [
            submission(self.prepare(source), inputs, job_id=uuid7(), idempotency_key=key)
            for (source, inputs), key in zip(jobs, keys, strict=True)
        ]
        return [Job(self, job_id) for job_id in self._submit(submissions)]

    def prepare(self, source: Source) -> Prepared:
        """Checks and compiles a process, to submit it many times."""
        if isinstance(source, Prepared):
            return source
        if isinstance(source, builder.Process):
            source = source.definition()
        if isinstance(source, Process):
            known = self._prepared.get(id(source))
            if known is None:
                known = self._prepared[id(source)] = (source, prepare(source))
            return known[1]
        with building():
            if isinstance(source, Mapping):
                return prepare(spec.parse(with_processes(source, folder=Path.cwd())))
            return prepare_file(source)

    def job(self, job_id: str) -> Job:
        """A job by its id. Raises `UnknownJobError`."""
        self.view(job_id)
        return Job(self, job_id)

    def wait_any(self, jobs: Sequence[Job], timeout: float | None = None) -> dict[str, JobView]:
        """Those of `jobs` that have ended, as soon as one has; empty after `timeout` seconds."""
        ids = [job.job_id for job in jobs]
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            left = POLL_S if deadline is None else min(POLL_S, max(0.0, deadline - time.monotonic()))
            ended: dict[str, JobView] = self._ask("supervisor", "wait", ids, left)
            if ended or (deadline is not None and time.monotonic() >= deadline):
                return ended

    def view(self, job_id: str) -> JobView:
        view: JobView = self._ask("supervisor", "view", job_id)
        return view

    def progress(self, job_id: str, after_seq: int, timeout_s: float) -> Progress:
        """What was committed of a job after `after_seq`: waits up to `timeout_s` seconds for something new."""
        progress: Progress = self._ask("supervisor", "progress", job_id, after_seq, timeout_s)
        return progress

    def failures(self, job_id: str) -> list[tuple[str, str, str]]:
        """(path, status, what happened) of the tasks that failed."""
        failures: list[tuple[str, str, str]] = self._ask("supervisor", "failures", job_id)
        return failures

    def cancel(self, job_id: str) -> None:
        try:
            self._ask("scheduler", "cancel", job_id)
        except UnknownJobError:
            self.view(job_id)

    def take_over(self, shards: list[str], job_ids: list[str]) -> list[Job]:
        """Goes on with jobs whose owner is gone, in this run."""
        taken: list[str] = self._ask("scheduler", "take_over", shards, job_ids)
        return [Job(self, job_id) for job_id in taken]

    def value(self, wire: Wire | None) -> Any:
        """A value as Python data."""
        if wire is None:
            return None
        if isinstance(wire, Large):
            return decode(self._ask("supervisor", "document", wire.hash))
        return decode(wire)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _submit(self, submissions: list[Submission]) -> list[str]:
        """Sends plans only to who does not have them yet."""
        while True:
            to = self._scheduler_name()
            sent: set[str] = set()
            message = []
            for each in submissions:
                known = (to, each.key) in self._sent or each.key in sent
                message.append(each.without_plan() if known else each)
                sent.add(each.key)
            acks = self._ask("scheduler", "submit", message)
            if all(verdict != "unknown plan" for verdict, _ in acks):
                self._sent.update((to, key) for key in sent)
                return [job_id for _, job_id in acks]
            self._sent -= {(to, key) for key in sent}

    def _scheduler_name(self) -> str:
        lease = self._find()
        return lease.scheduler if lease is not None else ""

    def _ask(self, role: str, method: str, *args: Any) -> Any:
        """Calls an actor, and finds its successor if it is gone. All these calls may be repeated."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                handle = self._handles.get(role)
                if handle is None:
                    handle = self._handles[role] = self._get(role)
                return ray.get(getattr(handle, method).remote(*args), timeout=PATIENCE_S)
            except RayTaskError as error:
                if isinstance(error.cause, ComAgentError) and not _moved(error.cause):
                    raise error.cause from None
                if not isinstance(error.cause, RayError | ComAgentError):
                    raise
                problem: Exception = error.cause
            except (RayError, ValueError, GetTimeoutError) as error:
                problem = error
            self._handles.pop(role, None)
            if time.monotonic() > deadline:
                raise CannotConnectError(f"the {role}", str(problem), "Is its Ray still running?") from problem
            time.sleep(PAUSE_S)

    def _get(self, role: str) -> Any:
        lease = self._find()
        if lease is None:
            raise ValueError("the shard has no owner")
        return ray.get_actor(lease.scheduler if role == "scheduler" else lease.supervisor, NAMESPACE)


def _moved(error: ComAgentError) -> bool:
    """Whether the answer only says that somebody else is to be asked."""
    return isinstance(error, StaleEpochError)
