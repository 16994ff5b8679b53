"""The engine's decisions, without any of its concurrency.

The machine is told what happened (`handle`) and answers with what has to be committed, and what to do once it is
(`Step`). It knows no Ray, no store and no clock: time and names come in with the events. Whoever drives it must

* commit a step's changes before carrying out its effects, and not call `handle` in between;
* forget a job whose commit is refused as stale (`forget`), or put it back where the store says it is (`Restored`).
"""

import heapq
from collections.abc import Iterable
from typing import Any

from comagent.costs import Cost
from comagent.dispatching import Dispatcher
from comagent.events import (
    Answer,
    CancelAt,
    CancelRequested,
    Change,
    Event,
    Joined,
    Kill,
    Lost,
    Reported,
    Restored,
    Retire,
    Step,
    Submitted,
)
from comagent.job import Happened, Job, error_payload
from comagent.protocol import DispatchId, Epoch, Report, Row, dispatch_label
from comagent.seats import Dispatch, Seat
from comagent.states import Task

CANCEL_GRACE_MS = 5_000.0
RETIRE_GRACE_MS = 10_000.0
"""How long an agent with a stuck thread may still work on what else it has."""
POISONOUS = 2
"""A task that was on so many agents when they died runs alone from then on."""
MISHAPS = 3
"""How often agents may be unable to run a task before that is its failure."""
NOT_ITS_FAULT = frozenset({"slow", "upstream", "cancelled", "fenced"})
"""Reasons for handing tasks back that are nobody's error."""
UNSENT = frozenset({Task.PENDING, Task.RETRYING})
"""States of tasks that are neither with an agent nor queued for one."""


class Machine(Dispatcher):
    """All jobs of one owner, and the agents that run them."""

    def __init__(self, epoch: Epoch, *, ref_edges: bool = False):
        super().__init__(epoch, ref_edges=ref_edges)
        self._statuses: dict[str, str] = {}
        """The status of each job that was committed, or is in the step being made."""
        self._restoring: list[Job] = []

    # In and out -------------------------------------------------------------------------------------------------------

    def handle(self, events: Iterable[Event], now_ms: float) -> Step:
        """Takes everything that happened since the last call, and all timers that are due."""
        self._now_ms = now_ms
        for event in events:
            match event:
                case Reported():
                    self._reported(event)
                case Submitted():
                    self._submitted(event)
                case Joined():
                    self._joined(event)
                case Lost():
                    self._lost(event.agent, blame=event.blame)
                case CancelRequested():
                    self._cancel(event.job_id, "cancelled")
                case Restored():
                    self._restored(event)
        for job in self._restoring:
            self._go_on(job)
        self._restoring.clear()
        while self._timers and self._timers[0][0] <= now_ms:
            _, _, kind, data = heapq.heappop(self._timers)
            self._timer(kind, data)
        self._queue_fresh()
        self._fill()
        changes = [self._change(job) for job in self._touched.values()]
        step = Step([c for c in changes if c.rows or c.events or c.status], self._effects)
        for job in self._touched.values():
            if job.finished:
                self._drop(job)
        self._touched, self._effects = {}, []
        return step

    def next_timer_ms(self) -> float | None:
        """When `handle` should be called even if nothing happens."""
        return self._timers[0][0] if self._timers else None

    def forget(self, job_id: str) -> None:
        """Another owner has the job, or it has to be read anew: nothing more is done for it here."""
        job = self.jobs.pop(job_id, None)
        if job is not None:
            self._drop(job)
        # The job may come back, and must not meet what is left of its first life, even if that was over.
        self._queue.drop(job_id)
        self._alone = [entry for entry in self._alone if entry[0] != job_id]
        self._end_reservations()

    def idle(self) -> bool:
        return not self.jobs

    def _change(self, job: Job) -> Change:
        rows, job.rows = job.rows, []
        events, job.events = job.events, []
        status = job.status if self._statuses.get(job.job_id) != job.status else None
        self._statuses[job.job_id] = job.status
        return Change(job, rows, events, status)

    def _drop(self, job: Job) -> None:
        self.jobs.pop(job.job_id, None)
        self._statuses.pop(job.job_id, None)
        if job.where:
            for dispatch in set(job.where.values()):
                self._close(dispatch)

    # Jobs -------------------------------------------------------------------------------------------------------------

    def _submitted(self, event: Submitted) -> None:
        job = event.job
        self.jobs[job.job_id] = self._touched[job.job_id] = job
        job.start()
        if event.deadline_ms is not None:
            self._at(event.deadline_ms, "job", job.job_id)

    def _restored(self, event: Restored) -> None:
        job = event.job
        self.jobs[job.job_id] = self._touched[job.job_id] = job
        self._statuses[job.job_id] = job.status
        self._restoring.append(job)
        for task, due_ms in event.retries.items():
            if job.state[task] == Task.PENDING:
                job.state[task] = Task.RETRYING
                self._at(due_ms, "retry", (job.job_id, task))
        if event.deadline_ms is not None:
            self._at(event.deadline_ms, "job", job.job_id)

    def _go_on(self, job: Job) -> None:
        """A restored job goes on once it is known which of its attempts still run."""
        job.go_on(self._now_ms)
        if job.status == "cancelling":
            self._stop_attempts(job)

    def _cancel(self, job_id: str, ending: str) -> None:
        job = self.jobs.get(job_id)
        if job is None or job.finished or job.status == "cancelling":
            return
        self._touched[job_id] = job
        job.events.append(Happened("stopping", None, {"ending": ending}, self._now_ms))
        job.stop(ending, self._now_ms)
        self._stop_attempts(job)

    def _stop_attempts(self, job: Job) -> None:
        agents = {dispatch.agent for dispatch in job.where.values()}
        self._effects.extend(CancelAt(agent, job.job_id) for agent in sorted(agents))
        if agents:
            self._at(self._now_ms + CANCEL_GRACE_MS, "cancel", job.job_id)

    def _timer(self, kind: str, data: Any) -> None:
        if kind == "retry":
            job_id, task = data
            job = self.jobs.get(job_id)
            if job is not None:
                self._touched[job_id] = job
                job.retry_due(task)
        elif kind == "job":
            self._cancel(data, "timed_out")
        elif kind == "cancel":
            job = self.jobs.get(data)
            if job is not None and job.status == "cancelling":
                self._touched[data] = job
                for dispatch in dict.fromkeys(job.where.values()):
                    message = "the attempt did not stop when it was cancelled"
                    self._give_up(dispatch, Task.CANCELLED, "Cancelled", message)
        elif kind == "attempt":
            dispatch = self.dispatches.get(data)
            if dispatch is not None:
                self._touched[dispatch.job_id] = self.jobs[dispatch.job_id]
                message = "the attempt ran out of time, and its agent did not answer"
                self._give_up(dispatch, Task.TIMED_OUT, "TimeoutError", message)
        elif kind == "retire" and data in self.seats:
            self._effects.append(Kill(data, "it has a thread that could not be stopped"))
            self._lost(data, blame=False)

    def _give_up(self, dispatch: Dispatch, status: Task, kind: str, message: str) -> None:
        """Ends what an agent does not let go of, and the agent."""
        job = self.jobs[dispatch.job_id]
        left = list(dispatch.left.items())
        self._close(dispatch)
        for task, attempt in left:
            row = Row(task, attempt, status, self._now_ms, self._now_ms, error_payload(kind, message))
            self._ended(job, row, dispatch_label(dispatch.id))
        if dispatch.agent in self.seats:
            self._effects.append(Kill(dispatch.agent, message))
            self._lost(dispatch.agent, blame=False)

    # Reports ----------------------------------------------------------------------------------------------------------

    def _reported(self, event: Reported) -> None:
        answers: list[tuple[str, DispatchId, dict[int, Row]]] = []
        for report in event.reports:
            dispatch = self.dispatches.get(report.dispatch)
            job = self.jobs.get(report.job_id)
            won: dict[int, Row] = {}
            if job is not None:
                self._touched[job.job_id] = job
                if dispatch is not None:
                    self._take(job, dispatch, report, won)
                else:
                    label = dispatch_label(report.dispatch)
                    for row in report.rows:
                        self._take_late(job, row, label, won)
            answers.append((report.job_id, report.dispatch, won))
        self._effects.append(Answer(event.token, answers))
        if event.tainted:
            self._retire(event.agent)
        else:
            self._end_if_retired(event.agent)

    def _take(self, job: Job, dispatch: Dispatch, report: Report, won: dict[int, Row]) -> None:
        """What an open dispatch reports."""
        where, left = job.where, dispatch.left
        now_ms, label = self._now_ms, dispatch_label(dispatch.id)
        succeeded = job.succeeded
        for row in report.rows:
            task = row[0]
            if left.pop(task, None) is None:
                self._take_late(job, row, label, won)
                continue
            del where[task]
            if row[2] == Task.SUCCEEDED:
                succeeded(task, row, label, now_ms)
            else:
                self._ended(job, Row(*row), label)
        for task in report.not_run:
            if left.pop(task, None) is not None:
                del where[task]
                if report.reason in NOT_ITS_FAULT:
                    job.handed_back(task, now_ms)
                else:
                    self._agent_error(job, task, report.reason or "")
        if report.rows:
            self._observe(job, dispatch, report.rows)
        if not left:
            self._close(dispatch)

    def _take_late(self, job: Job, row: Row, label: str, won: dict[int, Row]) -> None:
        """A row that was reported, or given up, before: only a success is news, and the first outcome wins."""
        task = row[0]
        if job.state[task] >= Task.SUCCEEDED:
            won[task] = self._committed(job, task)
        elif row[2] == Task.SUCCEEDED:
            other = job.where.pop(task, None)
            if other is not None:
                del other.left[task]
                if not other.left:
                    self._close(other)
            job.succeeded(task, row, label, self._now_ms)

    def _committed(self, job: Job, task: int) -> Row:
        return Row(task, 0, job.state[task], 0.0, 0.0, job.wires.get(task))

    def _ended(self, job: Job, row: Row, label: str) -> None:
        if row.status in (Task.FAILED, Task.TIMED_OUT):
            job.attempt_ended_badly(row.index, row, label, self._now_ms)
            for task, due_ms in job.retries:
                self._at(due_ms, "retry", (job.job_id, task))
            job.retries.clear()
        else:
            job.ended(row.index, row, label, self._now_ms)

    def _agent_error(self, job: Job, task: int, reason: str) -> None:
        """An agent could not run a task for reasons of its own: after a few times, that is the task's failure."""
        mishaps = job.mishaps[task] = job.mishaps.get(task, 0) + 1
        if mishaps < MISHAPS:
            job.handed_back(task, self._now_ms)
            return
        payload = error_payload("AgentError", f"no agent could run the task: {reason}")
        self._ended(job, Row(task, job.attempt_of(task), Task.FAILED, self._now_ms, self._now_ms, payload), "")

    def _observe(self, job: Job, dispatch: Dispatch, rows: list[Row]) -> None:
        """Learns from a unit what its tools cost."""
        tools, policy = dispatch.tools, job.plan.policy
        if len(tools) != 1:
            by_tool: dict[Cost, list[float]] = {}
            for row in rows:
                cost = tools.get(policy[row[0]])
                if cost is not None:
                    by_tool.setdefault(cost, []).append(row[4] - row[3])
            for cost, times in by_tool.items():
                self._learn(cost, len(times), sum(times))
            return
        cost = next(iter(tools.values()))
        if cost is not None:
            self._learn(cost, len(rows), sum([row[4] - row[3] for row in rows]))

    def _learn(self, cost: Cost, attempts: int, total_ms: float) -> None:
        was = cost.cheap
        cost.observe(attempts, total_ms)
        if cost.cheap != was:
            self._relane = True

    # Agents -----------------------------------------------------------------------------------------------------------

    def _joined(self, event: Joined) -> None:
        seat = self.seats.setdefault(event.agent, Seat(event.agent))
        for running in event.running:
            job = self.jobs.get(running.job_id)
            if job is None or running.dispatch in self.dispatches:
                continue
            self._touched[job.job_id] = job
            tasks = {
                task: attempt
                for task, attempt in running.parts
                if job.state[task] in UNSENT and attempt == job.attempt_of(task)
            }
            dispatch = Dispatch(
                running.dispatch, job.job_id, agent=event.agent, lane=running.lane, tasks=tasks, tools={}
            )
            for task in tasks:
                job.state[task] = Task.RUNNING
                job.where[task] = dispatch
            if tasks:
                self.dispatches[dispatch.id] = dispatch
                seat.add(dispatch)
                rules = [job.plan.policies[job.plan.policy[task]] for task in tasks]
                self._limit(dispatch, rules[0].timeout_s)

    def _lost(self, agent: str, *, blame: bool) -> None:
        """Closes all dispatches of a dead agent: what is not committed is run again."""
        seat = self.seats.pop(agent, None)
        if seat is None:
            return
        now_ms = self._now_ms
        for dispatch in list(seat.open.values()):
            job = self.jobs[dispatch.job_id]
            self._touched[job.job_id] = job
            left = list(dispatch.left.items())
            self._close(dispatch)
            for task, attempt in left:
                if blame:
                    deaths = job.deaths[task] = job.deaths.get(task, 0) + 1
                    if task in job.alone and dispatch.alone:
                        message = f"its agent died while it ran the task alone ({deaths} agents have died on it)"
                        payload = error_payload("AgentDied", message)
                        row = Row(task, attempt, Task.FAILED, now_ms, now_ms, payload)
                        self._ended(job, row, dispatch_label(dispatch.id))
                        continue
                    if deaths >= POISONOUS:
                        job.alone.add(task)
                job.handed_back(task, now_ms)

    def _retire(self, agent: str) -> None:
        seat = self.seats.get(agent)
        if seat is not None and not seat.retiring:
            seat.retiring = True
            self._effects.append(Retire(agent))
            self._at(self._now_ms + RETIRE_GRACE_MS, "retire", agent)
        self._end_if_retired(agent)

    def _end_if_retired(self, agent: str) -> None:
        seat = self.seats.get(agent)
        if seat is not None and seat.retiring and not seat.open:
            del self.seats[agent]
            self._effects.append(Kill(agent, "it was replaced"))
