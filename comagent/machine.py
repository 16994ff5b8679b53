"""The engine's decisions, without any of its concurrency.

The machine is told what happened (`handle`) and answers with what has to be committed, and what to do once it is
(`Step`). It knows no Ray, no store and no clock: time and names come in with the events. Whoever drives it must

* commit a step's changes before carrying out its effects, and not call `handle` in between;
* forget a job whose commit is refused as stale (`forget`), or put it back where the store says it is (`restore`).
"""

import heapq
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comagent.costs import LARGEST_UNIT, Cost, Costs
from comagent.job import Ended, Happened, Job, error_payload
from comagent.protocol import BATCH, DispatchId, Epoch, Lane, Part, Report, Row, Running, Unit, dispatch_label
from comagent.ready import ReadyQueue
from comagent.seats import Dispatch, Seat
from comagent.states import TASK_LABELS, Task
from comagent.steps import RESULT_TOOL

LANES_OF_UNIT = 32
"""A unit grows along chains, never wider than this or than it began: wide work is for all agents."""
SHORT_TIMEOUT_S = 1.0
TIMEOUT_GRACE_MS = 5_000.0
"""An agent that has not answered for an attempt so long after its timeout is taken to be stuck."""
CANCEL_GRACE_MS = 5_000.0
RETIRE_GRACE_MS = 10_000.0
"""How long an agent with a stuck thread may still work on what else it has."""
POISONOUS = 2
"""A task that was on so many agents when they died runs alone from then on."""
MISHAPS = 3
"""How often agents may be unable to run a task before that is its failure."""


# Events: what the machine is told -------------------------------------------------------------------------------------


class Submitted(NamedTuple):
    """A new job. `token` is whatever its owner needs to answer the client; it comes back with the commit."""

    job: Job
    deadline_ms: float | None


class Restored(NamedTuple):
    """A job that was taken over, already put where the store says it is."""

    job: Job
    deadline_ms: float | None
    retries: dict[int, float]
    """When the next attempt of a task is due, for those that were waiting for one."""


class Reported(NamedTuple):
    token: Any
    agent: str
    reports: Sequence[Report]
    tainted: bool
    """The agent has a thread that can't be stopped, and must be replaced."""


class Joined(NamedTuple):
    """A new agent, or one that was fenced, with the attempts it has in hand."""

    agent: str
    running: Sequence[Running]


class Lost(NamedTuple):
    """An agent is dead, or is treated as such. Without blame, it was ended on purpose."""

    agent: str
    blame: bool


class CancelRequested(NamedTuple):
    job_id: str


# Effects: what the machine wants done, once the step's changes are durable --------------------------------------------


class Send(NamedTuple):
    agent: str
    unit: Unit
    exports: bool
    """The agent's values will be passed on by object ref."""
    upstream: tuple[DispatchId, ...]
    """Dispatches whose values the unit takes by object ref: it starts by itself when they exist."""


class Release(NamedTuple):
    """Nobody will be sent the values of this dispatch any more."""

    dispatch: DispatchId


class Answer(NamedTuple):
    """The reply to one message of reports: for each, its job, and the outcomes that won over what it reported."""

    token: Any
    answers: list[tuple[str, DispatchId, dict[int, Row]]]


class CancelAt(NamedTuple):
    """The agent should stop what it runs of a job."""

    agent: str
    job_id: str


class Retire(NamedTuple):
    """The agent should be replaced now, and ended when it is idle or `kill` says so."""

    agent: str


class Kill(NamedTuple):
    agent: str
    reason: str


Event = Submitted | Restored | Reported | Joined | Lost | CancelRequested
Effect = Send | Answer | CancelAt | Release | Retire | Kill


class Change(NamedTuple):
    """What one job adds to the store."""

    job: Job
    rows: list[Ended]
    events: list[Happened]
    status: str | None


@dataclass(slots=True)
class Step:
    changes: list[Change] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)


class Machine:
    """All jobs of one owner, and the agents that run them."""

    def __init__(self, epoch: Epoch, *, ref_edges: bool = False):
        self.epoch = epoch
        self.ref_edges = ref_edges
        """Whether units may be sent ahead of what they need, to be started by object refs."""
        self.jobs: dict[str, Job] = {}
        self.seats: dict[str, Seat] = {}
        self.dispatches: dict[DispatchId, Dispatch] = {}
        self.costs = Costs()
        self._queue = ReadyQueue()
        self._alone: list[tuple[str, int]] = []
        self._timers: list[tuple[float, int, str, Any]] = []
        self._timer_number = 0
        self._dispatched = 0
        self._touched: dict[str, Job] = {}
        self._statuses: dict[str, str] = {}
        self._effects: list[Effect] = []
        self._relane = False
        self._restoring: list[Job] = []
        self._now_ms = 0.0

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

    def _at(self, due_ms: float, kind: str, data: Any) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (due_ms, self._timer_number, kind, data))

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

    def _limit(self, dispatch: Dispatch, timeout_s: float | None) -> None:
        if timeout_s is not None and dispatch.lane != BATCH:
            self._at(self._now_ms + timeout_s * 1000 + TIMEOUT_GRACE_MS, "attempt", dispatch.id)

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

    def _close(self, dispatch: Dispatch) -> None:
        """Nothing more is expected of a dispatch: it is revoked, or fully answered."""
        if self.dispatches.pop(dispatch.id, None) is None:
            return
        if dispatch.exports:
            self._effects.append(Release(dispatch.id))
        seat = self.seats.get(dispatch.agent)
        if seat is not None and dispatch.id in seat.open:
            seat.remove(dispatch)
        job = self.jobs.get(dispatch.job_id)
        if job is not None:
            for task in dispatch.left:
                job.where.pop(task, None)

    # Dispatch ---------------------------------------------------------------------------------------------------------

    def _cost(self, job: Job, task: int) -> Cost | None:
        policy = job.plan.policies[job.plan.policy[task]]
        if policy.tool == RESULT_TOOL:
            return None
        return self.costs.of(job.plan.tools[policy.tool], policy.cost)

    def _lane(self, job: Job, task: int) -> Lane:
        """Cheap tasks that need no loop of their own go in batches, the others one by one by the kind of their tool."""
        policy = job.plan.policies[job.plan.policy[task]]
        if policy.tool == RESULT_TOOL:
            return BATCH
        tool = job.plan.tools[policy.tool]
        if tool.kind in ("inline", "thread") and not _short(policy.timeout_s) and self.costs.of(tool, policy.cost).cheap:
            return BATCH
        return tool.kind

    def _lane_of(self, job_id: str, task: int) -> Lane:
        job = self.jobs.get(job_id)
        return self._lane(job, task) if job is not None else BATCH

    def _queue_fresh(self) -> None:
        for job in self._touched.values():
            if not job.fresh:
                continue
            fresh, job.fresh = job.fresh, []
            lanes: dict[int, Lane] = {}
            policy = job.plan.policy
            push, priority, job_id = self._queue.push, job.priority, job.job_id
            for task in fresh:
                if job.state[task] != Task.READY:
                    continue
                if task in job.alone:
                    self._alone.append((job_id, task))
                    continue
                lane = lanes.get(policy[task])
                if lane is None:
                    lane = lanes[policy[task]] = self._lane(job, task)
                push(lane, priority, job_id, task)
        if self._relane:
            self._relane = False
            self._queue.relane(self._lane_of)

    def _fill(self) -> None:
        """Hands out ready tasks while there are agents with room."""
        if self._alone:
            self._fill_alone()
        for lane in self._queue.lanes():
            sizes: dict[str, int] = {}
            while (turn := self._queue.turn(lane)) is not None:
                seat = self._seat_for(lane)
                if seat is None:
                    break
                job_id, first, queued = turn
                job = self.jobs.get(job_id)
                if job is None:
                    self._queue.take(lane, queued)
                    continue
                size = 1
                if lane == BATCH:
                    if job_id not in sizes:
                        sizes[job_id] = -(-queued // max(1, len(self.seats)))
                    size = self._unit_size(job, first, sizes[job_id])
                tasks = [task for task in self._queue.take(lane, size) if job.state[task] == Task.READY]
                if tasks:
                    self._send(job, self._grown(job, tasks) if lane == BATCH else tasks, seat, lane, seeds=len(tasks))
        if self.ref_edges:
            for job in self._touched.values():
                if job.near and not job.finished:
                    self._fill_ahead(job)

    def _fill_ahead(self, job: Job) -> None:
        """Sends cheap tasks whose missing needs are all on their way, while agents have room: refs will start them."""
        state = job.state
        near = list(dict.fromkeys(task for task in job.near if state[task] == Task.PENDING))
        job.near = []
        while near and (seat := self._seat_for(BATCH)) is not None:
            size = self._unit_size(job, near[0], -(-len(near) // len(self.seats)))
            chosen, near = near[:size], near[size:]
            tasks: list[int] = []
            borrows: list[tuple[int, tuple[str, ...]]] = []
            upstream: dict[DispatchId, None] = {}
            for task in chosen:
                paths = self._on_its_way(job, task, upstream)
                if paths:
                    borrows.append((len(tasks), paths))
                    tasks.append(task)
            if tasks:
                self._send(job, tasks, seat, BATCH, seeds=len(tasks), borrows=tuple(borrows), upstream=tuple(upstream))
        job.near += near

    def _on_its_way(self, job: Job, task: int, upstream: dict[DispatchId, None]) -> tuple[str, ...]:
        """The needs of a task that will come by object ref, if it waits for nothing else; adds their dispatches.

        Both ends must be cheap and the trigger `all_succeeded`; everything else waits for commits.
        """
        plan, state, where = job.plan, job.state, job.where
        if state[task] != Task.PENDING or task in job.alone or task in job.doomed or self._lane(job, task) != BATCH:
            return ()
        if plan.reads_ends[task]:
            return ()
        paths: list[str] = []
        found: list[DispatchId] = []
        for need in plan.needs[plan.needs_at[task] : plan.needs_at[task + 1]]:
            if state[need] >= Task.SUCCEEDED:
                continue
            dispatch = where.get(need)
            if dispatch is None or not dispatch.exports:
                return ()
            paths.append(plan.ids[need])
            found.append(dispatch.id)
        for used in plan.uses[plan.uses_at[task] : plan.uses_at[task + 1]]:
            if state[used] < Task.SUCCEEDED and plan.ids[used] not in paths:
                return ()
        for dispatch_id in found:
            upstream[dispatch_id] = None
        return tuple(paths)

    def _promise(self, job: Job, tasks: dict[int, int]) -> bool:
        """Notes who could be sent ahead of these tasks; whether anybody outside their unit waits for them at all."""
        plan, state, waiting, promised = job.plan, job.state, job.waiting, job.promised
        feeds_at, feeds, plain = plan.feeds_at, plan.feeds, plan.plain
        outside = False
        for task in tasks:
            if task >= len(plan):
                continue
            for fed in feeds[feeds_at[task] : feeds_at[task + 1]]:
                if fed not in tasks and plain[fed] and state[fed] == Task.PENDING:
                    outside = True
                    count = promised[fed] = promised.get(fed, 0) + 1
                    if count >= waiting[fed]:
                        job.near.append(fed)
        return outside

    def _seat_for(self, lane: Lane) -> Seat | None:
        best: Seat | None = None
        for seat in self.seats.values():
            if seat.room(lane) and (best is None or seat.load(lane) < best.load(lane)):
                best = seat
        return best

    def _unit_size(self, job: Job, first: int, share: int) -> int:
        """How many of a job's cheap tasks go together: its share for one agent, if that is worth a message."""
        cost = self._cost(job, first)
        return min(max(share, cost.grain), cost.largest_unit) if cost is not None else share

    def _fill_alone(self) -> None:
        """Tasks that may have killed agents run on an idle agent; one agent at a time is kept free for them."""
        waiting, self._alone = self._alone, []
        for job_id, task in waiting:
            job = self.jobs.get(job_id)
            if job is None or job.state[task] != Task.READY:
                continue
            seats = [seat for seat in self.seats.values() if not seat.retiring and not seat.boxed]
            idle = next((seat for seat in seats if not seat.open), None)
            if idle is None:
                if seats and not any(seat.reserved for seat in seats):
                    min(seats, key=lambda seat: len(seat.open)).reserved = True
                self._alone.append((job_id, task))
                continue
            lane = self._lane(job, task)
            idle.reserved = False
            dispatch = self._send(job, [task], idle, lane, seeds=1)
            dispatch.alone = idle.boxed = True
        self._end_reservations()

    def _end_reservations(self) -> None:
        if not self._alone:
            for seat in self.seats.values():
                seat.reserved = False

    def _grown(self, job: Job, seeds: list[int]) -> list[int]:
        """A unit of cheap tasks: its seeds, then what depends on nothing else, as long as it gets no wider."""
        plan, state, waiting = job.plan, job.state, job.waiting
        feeds_at, feeds, plain, policy = plan.feeds_at, plan.feeds, plan.plain, plan.policy
        reads_ends = plan.reads_ends
        members = list(seeds)
        width = max(len(seeds), LANES_OF_UNIT)
        unmet: dict[int, int] = {}
        cheap: dict[int, bool] = {}
        limit = max(len(seeds), self._unit_size(job, seeds[0], LARGEST_UNIT))
        generation = seeds
        while generation and len(members) < limit:
            following: list[int] = []
            for member in generation:
                for fed in feeds[feeds_at[member] : feeds_at[member + 1]]:
                    left = unmet.get(fed)
                    left = unmet[fed] = (waiting[fed] if left is None else left) - 1
                    if left == 0 and plain[fed] and state[fed] == Task.PENDING:
                        rule = policy[fed]
                        fits = cheap.get(rule)
                        if fits is None:
                            fits = cheap[rule] = self._lane(job, fed) == BATCH
                        if fits and fed not in job.alone and fed not in job.doomed and not reads_ends[fed]:
                            following.append(fed)
            if len(following) > width or len(members) + len(following) > limit:
                break
            members += following
            generation = following
        result = len(plan)
        last = len(plan.groups) == 1 and job.left[0] == len(members) and job.ending is None
        if last and state[result] == Task.PENDING and result not in job.alone and not reads_ends[result]:
            members.append(result)
        return members

    def _send(
        self,
        job: Job,
        members: list[int],
        seat: Seat,
        lane: Lane,
        *,
        seeds: int,
        borrows: tuple[tuple[int, tuple[str, ...]], ...] = (),
        upstream: tuple[DispatchId, ...] = (),
    ) -> Dispatch:
        plan, state, where, wires = job.plan, job.state, job.where, job.wires
        self._dispatched += 1
        dispatch_id = (*self.epoch, self._dispatched)
        ids, steps, policy, policies = plan.ids, plan.steps, plan.policy, plan.policies
        failures, readers, reads_ends = job.failures, plan.uses_at, plan.reads_ends
        parts: list[Part] = []
        tasks: dict[int, int] = {}
        tools: dict[int, tuple[Any, ...]] = {}
        costs: dict[int, Any] = {}
        literals: dict[str, Any] = {}
        ends: dict[str, tuple[str, bytes | None]] = {}
        timeout_s: float | None = None
        dispatch = Dispatch(dispatch_id, job.job_id, agent=seat.name, lane=lane, tasks=tasks, tools=costs)
        for task in members:
            attempt = failures.get(task, 0) + 1 if failures else 1
            tasks[task] = attempt
            state[task] = Task.RUNNING
            where[task] = dispatch
            parts.append((task, attempt, ids[task], steps[task]))  # type: ignore[arg-type]
            rule = policy[task]
            if rule not in costs:
                costs[rule] = self._cost(job, task)
                number = policies[rule].tool
                if number != RESULT_TOOL:
                    tools[number] = (plan.tools[number].name, plan.tools[number].kind, plan.tools[number].code)
                timeout_s = policies[rule].timeout_s
            for used in plan.uses[readers[task] : readers[task + 1]]:
                wire = wires.get(used)
                if wire is not None:
                    literals[ids[used]] = wire
                if reads_ends[task]:
                    ends[ids[used]] = (TASK_LABELS[state[used]], job.errors.get(used))
        dispatch.size = len(tasks)
        self.dispatches[dispatch_id] = dispatch
        seat.add(dispatch)
        self._limit(dispatch, timeout_s)
        dispatch.exports = self.ref_edges and lane == BATCH and self._promise(job, tasks)
        unit = Unit(dispatch_id, job.job_id, lane, parts, seeds, tools, job.inputs, literals, ends, borrows)
        self._effects.append(Send(seat.name, unit, dispatch.exports, upstream))
        return dispatch


def _short(timeout_s: float | None) -> bool:
    """Whether a timeout is too short to be kept by an agent that looks at its batch now and then."""
    return timeout_s is not None and timeout_s < SHORT_TIMEOUT_S


NOT_ITS_FAULT = frozenset({"slow", "upstream", "cancelled", "fenced"})
"""Reasons for handing tasks back that are nobody's error."""

UNSENT = frozenset({Task.PENDING, Task.RETRYING})
"""States of tasks that are neither with an agent nor queued for one."""
