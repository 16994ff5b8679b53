"""The life of one job and of its tasks: what each outcome means for the others.

Pure: no clock, no queue, no agents. `Job` is told what became of attempts; it keeps the state of every task, decides
retries, triggers, skips and the job's own end, and collects what has to be committed (`rows`, `events`, `status`) and
what may run now (`fresh`) until its owner takes them away.
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from comagent import retry
from comagent.plan import Plan, Policy
from comagent.protocol import Row, Wire
from comagent.states import TASK_LABELS, Task

HANDLERS = frozenset({"one_failed", "all_done"})
"""Triggers of tasks that deal with failure: they still run in a job that is failing."""

PENDING, READY, RUNNING, RETRYING, WAITING = Task.PENDING, Task.READY, Task.RUNNING, Task.RETRYING, Task.WAITING
SUCCEEDED, FAILED, SKIPPED = Task.SUCCEEDED, Task.FAILED, Task.SKIPPED
CANCELLED, TIMED_OUT = Task.CANCELLED, Task.TIMED_OUT
TERMINAL = Task.SUCCEEDED


class Ended(NamedTuple):
    """An outcome to be committed. `dispatch` is empty where no attempt made it (skipped, cancelled before it ran)."""

    dispatch: str
    row: Row


class Happened(NamedTuple):
    """Anything else to be committed about a job or one of its tasks."""

    kind: str
    task: int | None
    body: dict[str, Any]
    at_ms: float


class Retry(NamedTuple):
    task: int
    due_ms: float


def error_payload(error_type: str, message: str) -> bytes:
    """An error that no tool raised, in the form that agents report errors in."""
    return json.dumps({"type": error_type, "message": message}, ensure_ascii=False, separators=(",", ":")).encode()


class Job:
    """State of a running job. Indices are those of its plan; the last one is the implicit task for the result."""

    __slots__ = (
        "alone",
        "causes",
        "deaths",
        "doomed",
        "endings",
        "errors",
        "events",
        "failures",
        "finished",
        "fresh",
        "inputs",
        "job_id",
        "left",
        "mishaps",
        "near",
        "plan",
        "priority",
        "promised",
        "readers",
        "retries",
        "rows",
        "state",
        "status",
        "tally",
        "waiting",
        "where",
        "wires",
    )

    def __init__(self, job_id: str, plan: Plan, *, inputs: Wire, priority: int):
        total = len(plan.ids)
        self.job_id = job_id
        self.plan = plan
        self.inputs = inputs
        self.priority = priority
        self.status = "running"
        self.state = bytearray(total)
        self.waiting = [end - start for start, end in zip(plan.needs_at, plan.needs_at[1:], strict=False)]
        """Needs of each task that have not ended (for `all_succeeded`: not ended well)."""
        self.tally: dict[int, list[int]] = {}
        """(succeeded, failed) among the needs of tasks with any other trigger."""
        self.doomed: set[int] = set()
        """Tasks inside a running unit that must be skipped if they are handed back."""
        self.failures: dict[int, int] = {}
        """Attempts that failed and were not the last."""
        self.deaths: dict[int, int] = {}
        """Agents that died while they had the task."""
        self.mishaps: dict[int, int] = {}
        """How often an agent could not run the task for reasons of its own."""
        self.alone: set[int] = set()
        """Tasks that run alone on their agent from now on."""
        self.where: dict[int, Any] = {}
        """The open dispatch of each running task."""
        self.near: list[int] = []
        """Tasks of which all that they still need may be in units that export: candidates to be sent ahead."""
        self.promised: dict[int, int] = {}
        """How often something that a task needs was sent in a unit that exports."""
        self.wires: dict[int, Wire] = {}
        """Values that tasks which have not ended will read."""
        self.readers = plan.readers.copy()
        self.errors: dict[int, bytes | None] = {}
        self.left = [group.size for group in plan.groups]
        """For the job and each sub-process: how many of its tasks have not ended, but for the one for its result."""
        self.endings: list[str | None] = [None] * len(plan.groups)
        """How the job, or a sub-process, will end, if not well: `failed`, `skipped`, `cancelled` or `timed_out`."""
        self.causes: list[bytes | None] = [None] * len(plan.groups)
        """The error with which the job, or a sub-process, began to fail."""
        self.finished = False
        self.fresh: list[int] = []
        self.rows: list[Ended] = []
        self.events: list[Happened] = []
        self.retries: list[Retry] = []

    @property
    def ending(self) -> str | None:
        """How the job will end, if not well."""
        return self.endings[0]

    @property
    def error(self) -> bytes | None:
        """The error with which the job began to fail."""
        return self.causes[0]

    # What may happen to a job -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Makes the tasks ready that need nothing."""
        state, fresh, results = self.state, self.fresh, self.plan.results
        for task, needs in enumerate(self.waiting):
            if needs == 0 and state[task] == PENDING and task not in results:
                state[task] = READY
                fresh.append(task)

    def restore(self, ended: Iterable[Row], failures: dict[int, int], stopping: str | None) -> None:
        """Puts a job that another owner began where the store says it is; `go_on` follows.

        `ended` comes in the order of its commits; `stopping` is how the job was to end if it was being cancelled.
        """
        plan, state = self.plan, self.state
        for row in ended:
            task = row.index
            state[task] = row.status
            if task < len(plan):
                self.left[plan.group[task]] -= 1
            if row.status == SUCCEEDED:
                if self.readers[task] and row.payload is not None:
                    self.wires[task] = row.payload
            else:
                self.errors[task] = row.payload  # type: ignore[assignment]
                self._note_ending(task, row.status)
        for task in range(len(plan)):
            if state[task] >= TERMINAL:
                self._release(task)
                self._tell(task, state[task], self._passes(task, state[task]))
        self.failures = dict(failures)
        if stopping is not None:
            self._stop_all(stopping)

    def go_on(self, now_ms: float) -> None:
        """After `restore`, and once it is known what still runs: makes ready or ends what does not."""
        if any(self.endings):
            self._end_all_unstarted(now_ms)
        for task in range(len(self.plan)):
            if task not in self.plan.results:
                self._consider(task, now_ms)
        for group in reversed(range(len(self.left))):
            self._make_result(group, now_ms)

    def succeeded(self, task: int, row: Row, dispatch: str, now_ms: float) -> None:
        """An attempt succeeded: its value is the task's."""
        self.state[task] = SUCCEEDED
        self.rows.append(Ended(dispatch, row))
        if self.readers[task]:
            self.wires[task] = row[5]  # type: ignore[assignment]
        plan = self.plan
        if task == len(plan):
            self._finish()
            return
        group = plan.group[task]
        self.left[group] -= 1
        state, waiting, plain = self.state, self.waiting, plan.plain
        for fed in plan.feeds[plan.feeds_at[task] : plan.feeds_at[task + 1]]:
            waiting[fed] -= 1
            if plain[fed]:
                if waiting[fed] == 0 and state[fed] == PENDING:
                    state[fed] = READY
                    self.fresh.append(fed)
            else:
                self._count(fed, 0)
                self._consider(fed, now_ms)
        self._release(task)
        if self.left[group] == 0:
            self._make_result(group, now_ms)

    def attempt_ended_badly(self, task: int, row: Row, dispatch: str, now_ms: float) -> None:
        """An attempt failed or timed out: the task is tried again if its policy says so, else that is its outcome."""
        policy = self._policy(task)
        failed = self.failures.get(task, 0) + 1
        error = json.loads(row.payload) if isinstance(row.payload, bytes) else {}
        kind = "TimeoutError" if row.status == TIMED_OUT else str(error.get("type", ""))
        if not self._stops(task) and retry.should_retry(policy.retry, failed, kind):
            wait_s = retry.delay_s(policy.retry, failed, key=f"{self.job_id}/{self.plan.ids[task]}")
            self.failures[task] = failed
            self.state[task] = RETRYING
            self.retries.append(Retry(task, now_ms + wait_s * 1000))
            body = {
                "attempt": row.attempt,
                "status": TASK_LABELS[row.status],
                "error": error,
                "started_ms": int(row.started_ms),
                "ended_ms": int(row.ended_ms),
                "retry_in_s": round(wait_s, 3),
            }
            self.events.append(Happened("attempt_failed", task, body, now_ms))
        else:
            self._end(task, row, dispatch, now_ms)

    def ended(self, task: int, row: Row, dispatch: str, now_ms: float) -> None:
        """An attempt ended as skipped (its condition is false) or cancelled."""
        self._end(task, row, dispatch, now_ms)

    def handed_back(self, task: int, now_ms: float) -> None:
        """A task was dispatched and never started: it is where it was before."""
        self.state[task] = PENDING
        if task in self.plan.results:
            self._make_result(self.plan.results[task], now_ms)
        elif self._stops(task) and task not in self.doomed:
            self._end_unstarted(task, now_ms)
        else:
            self._consider(task, now_ms)

    def retry_due(self, task: int) -> None:
        """The back-off of a task is over."""
        if self.state[task] == RETRYING:
            self.state[task] = READY
            self.fresh.append(task)

    def stop(self, ending: str, now_ms: float) -> None:
        """Ends everything that does not run; the rest is for the owner to stop. `ending` is how the job will end."""
        self._stop_all(ending)
        self._end_all_unstarted(now_ms)
        for result, group in self.plan.results.items():
            if self.state[result] == READY:
                self.state[result] = PENDING
            self._make_result(group, now_ms)

    def attempt_of(self, task: int) -> int:
        """Number of the next attempt; the first is 1."""
        return self.failures.get(task, 0) + 1

    def snapshot(self) -> tuple[Any, ...]:
        """What must be equal after a rebuild from the store: everything but what is on its way."""
        settled = bytes(s if s >= TERMINAL else 0 for s in self.state)
        left, endings = tuple(self.left), tuple(self.endings)
        return settled, left, self.status, endings, self.finished, dict(self.failures), sorted(self.wires)

    # What follows from it ---------------------------------------------------------------------------------------------

    def _policy(self, task: int) -> Policy:
        return self.plan.policies[self.plan.policy[task]]

    def _stops(self, task: int) -> bool:
        """Whether a task that does not run ends with what it is part of: what fails still runs its handlers."""
        if task in self.plan.results:
            return False
        ending = self.endings[self.plan.group[task]]
        return ending is not None and (ending != "failed" or self._policy(task).trigger not in HANDLERS)

    def _note_ending(self, task: int, status: int) -> int | None:
        """What an outcome other than success means for what the task is part of: returns the group that ends now."""
        group = self.plan.group[task]
        if self.endings[group] is not None:
            return None
        if status in (FAILED, TIMED_OUT) and self._policy(task).on_failure == "fail":
            self._end_group(group, "failed", self.errors.get(task))
        elif task == self.plan.groups[group].entry:
            self._end_group(group, "skipped", None)
        else:
            return None
        return group

    def _end_group(self, group: int, ending: str, cause: bytes | None) -> None:
        """A job or sub-process ends badly, and with it the sub-processes in it."""
        groups, endings = self.plan.groups, self.endings
        endings[group], self.causes[group] = ending, cause
        for inner in range(group + 1, len(groups)):
            if groups[inner].first >= groups[group].last:
                break
            if endings[inner] is None:
                endings[inner] = "skipped"

    def _stop_all(self, ending: str) -> None:
        for group, before in enumerate(self.endings):
            if before in (None, "failed", "skipped"):
                self.endings[group] = ending
        self.status = "cancelling"

    def _end_all_unstarted(self, now_ms: float) -> None:
        for task in self._unstarted(0):
            self._end_unstarted(task, now_ms)

    def _unstarted(self, group: int) -> list[int]:
        """Tasks of a group that have not started, and will not."""
        first, last, state = self.plan.groups[group].first, self.plan.groups[group].last, self.state
        unstarted = (PENDING, READY, RETRYING, WAITING)
        return [task for task in range(first, last) if state[task] in unstarted and self._stops(task)]

    def _end_unstarted(self, task: int, now_ms: float) -> None:
        self._end(task, self._unstarted_row(task, now_ms), "", now_ms)

    def _unstarted_row(self, task: int, now_ms: float) -> Row:
        match self.endings[self.plan.group[task]]:
            case "failed":
                return self._row(task, SKIPPED, "JobFailed", "not started, because the job had failed", now_ms)
            case "skipped":
                return self._row(task, SKIPPED, "JobFailed", "not started, because its sub-process had ended", now_ms)
            case ending:
                why = "the job ran out of time" if ending == "timed_out" else "the job was cancelled"
                return self._row(task, CANCELLED, "Cancelled", f"not started, because {why}", now_ms)

    def _row(self, task: int, status: Task, kind: str, message: str, now_ms: float) -> Row:
        """The outcome of a task that ends without another attempt."""
        return Row(task, self.failures.get(task, 0), status, now_ms, now_ms, error_payload(kind, message))

    def _end(self, task: int, row: Row, dispatch: str, now_ms: float) -> None:
        """An outcome other than success, and all skips that follow from it."""
        plan, state = self.plan, self.state
        todo: list[tuple[int, Row, str]] = [(task, row, dispatch)]
        complete: list[int] = []
        while todo:
            task, row, dispatch = todo.pop()
            if state[task] >= TERMINAL:
                continue
            state[task] = row.status
            self.rows.append(Ended(dispatch, row))
            self.errors[task] = row.payload if isinstance(row.payload, bytes) else None
            if task == len(plan):
                self._end_result(row)
                return
            group = plan.group[task]
            self.left[group] -= 1
            if self.left[group] == 0:
                complete.append(group)
            passes = self._passes(task, row.status)
            ended = self._note_ending(task, row.status)
            if ended is not None:
                label = TASK_LABELS[row.status].replace("_", " ")
                why = f'not started, because task "{plan.ids[task]}" {label}'
                rows = [self._row(other, SKIPPED, "JobFailed", why, now_ms) for other in self._unstarted(ended)]
                todo += [(each.index, each, "") for each in rows]
            for fed in self._tell(task, row.status, passes):
                if state[fed] >= TERMINAL:
                    continue
                if plan.plain[fed]:
                    if passes:
                        self._consider(fed, now_ms)
                    elif state[fed] == RUNNING:
                        self.doomed.add(fed)
                    else:
                        todo.append((fed, self._skip_row(fed, task, now_ms), ""))
                elif state[fed] == PENDING:
                    verdict = self._triggered(fed)
                    if verdict == SKIPPED:
                        todo.append((fed, self._skip_row(fed, task, now_ms), ""))
                    elif verdict == READY:
                        state[fed] = READY
                        self.fresh.append(fed)
            self._release(task)
        for group in complete:
            self._make_result(group, now_ms)

    def _skip_row(self, task: int, cause: int, now_ms: float) -> Row:
        if self.ending is not None and self.ending != "failed":
            return self._unstarted_row(task, now_ms)
        label = TASK_LABELS[self.state[cause]].replace("_", " ")
        why = f'skipped, because task "{self.plan.ids[cause]}" {label}'
        return self._row(task, SKIPPED, "UpstreamNotSucceeded", why, now_ms)

    def _passes(self, task: int, status: int) -> bool:
        """Whether `all_succeeded` tasks downstream take the outcome as good: a failure with `continue` is."""
        return status == SUCCEEDED or (status in (FAILED, TIMED_OUT) and self._policy(task).on_failure == "continue")

    def _tell(self, task: int, status: int, passes: bool) -> list[int]:
        """Counts an outcome at all tasks that need it, and returns them."""
        plan = self.plan
        fed_tasks = plan.feeds[plan.feeds_at[task] : plan.feeds_at[task + 1]]
        for fed in fed_tasks:
            if plan.plain[fed]:
                if passes:
                    self.waiting[fed] -= 1
                else:
                    self.doomed.add(fed)
            else:
                self.waiting[fed] -= 1
                if status == SUCCEEDED:
                    self._count(fed, 0)
                elif status in (FAILED, TIMED_OUT):
                    self._count(fed, 1)
        return fed_tasks

    def _count(self, task: int, slot: int) -> None:
        self.tally.setdefault(task, [0, 0])[slot] += 1

    def _consider(self, task: int, now_ms: float) -> None:
        """Makes a pending task ready, or skips it, if its needs say so by now."""
        if self.state[task] != PENDING:
            return
        verdict: Task | None
        if self.plan.plain[task]:
            verdict = SKIPPED if task in self.doomed else READY if self.waiting[task] == 0 else None
        else:
            verdict = self._triggered(task)
        if verdict == READY:
            self.state[task] = READY
            self.fresh.append(task)
        elif verdict == SKIPPED:
            needs = [need for need in self.plan.needs_of(task) if self.state[need] >= TERMINAL]
            bad = [need for need in needs if not self._passes(need, self.state[need])]
            self._end(task, self._skip_row(task, (bad or needs)[0], now_ms), "", now_ms)

    def _triggered(self, task: int) -> Task | None:
        """What a trigger other than `all_succeeded` says: ready, skipped, or None for not yet."""
        succeeded, failed = self.tally.get(task, (0, 0))
        over = self.waiting[task] == 0
        match self._policy(task).trigger:
            case "one_succeeded":
                return READY if succeeded else SKIPPED if over else None
            case "one_failed":
                return READY if failed else SKIPPED if over else None
            case "none_failed":
                return SKIPPED if failed else READY if over else None
            case _:
                return READY if over else None

    def _release(self, task: int) -> None:
        """Lets go of the values that only this task had yet to read."""
        plan, readers = self.plan, self.readers
        for used in plan.uses[plan.uses_at[task] : plan.uses_at[task + 1]]:
            readers[used] -= 1
            if readers[used] == 0:
                self.wires.pop(used, None)

    def _make_result(self, group: int, now_ms: float) -> None:
        """Once all tasks of the job, or of a sub-process, have ended: the one for its result runs, or ends too."""
        result = self.plan.groups[group].result
        if self.left[group] or self.state[result] != PENDING:
            return
        match self.endings[group]:
            case None:
                self.state[result] = READY
                self.fresh.append(result)
                return
            case "failed" if group > 0:
                why = self.causes[group] or error_payload("SubProcessFailed", "a task of the sub-process failed")
                row = Row(result, 1, FAILED, now_ms, now_ms, why)
            case ending:
                status = CANCELLED if group > 0 and ending in ("cancelled", "timed_out") else SKIPPED
                what = "sub-process" if group > 0 else "job"
                row = self._row(result, status, "JobFailed", f"no result, because the {what} did not succeed", now_ms)
        self._end(result, row, "", now_ms)

    def _end_result(self, row: Row) -> None:
        if row.status != SKIPPED and self.ending is None:
            self.endings[0] = "timed_out" if row.status == TIMED_OUT else "failed"
            self.causes[0] = self.errors[row.index]
        self._finish()

    def _finish(self) -> None:
        self.status = self.ending or "succeeded"
        self.finished = True
