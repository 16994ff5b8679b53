"""Which task goes to which agent, together with which others.

Ready tasks are formed into units at the moment an agent has room, over what is ready then, never over a whole graph.
Cheap tasks go together, along with what depends on nothing else; each other task goes alone, by the kind of its tool.
"""

import heapq
from typing import Any

from comagent.costs import LARGEST_UNIT, Cost, Costs
from comagent.events import Effect, Release, Send
from comagent.job import Job
from comagent.protocol import BATCH, DispatchId, Epoch, Lane, Part, Unit
from comagent.ready import ReadyQueue
from comagent.seats import Dispatch, Seat
from comagent.states import TASK_LABELS, Task
from comagent.steps import RESULT_TOOL

LANES_OF_UNIT = 32
"""A unit grows along chains, never wider than this or than it began: wide work is for all agents."""
SHORT_TIMEOUT_S = 1.0
"""A shorter timeout is kept by its own timer: agents look at the batch that they run only now and then."""
TIMEOUT_GRACE_MS = 5_000.0
"""An agent that has not answered for an attempt so long after its timeout is taken to be stuck."""


class Dispatcher:
    """The jobs' ready tasks, the agents' seats, and the units that are out."""

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
        """Tasks that must run alone, and wait for an idle agent."""
        self._timers: list[tuple[float, int, str, Any]] = []
        self._timer_number = 0
        self._dispatched = 0
        self._touched: dict[str, Job] = {}
        """Jobs to which something happened in this step."""
        self._effects: list[Effect] = []
        self._relane = False
        """The cost of a tool turned out different: what is queued must be sorted anew."""
        self._now_ms = 0.0

    def _at(self, due_ms: float, kind: str, data: Any) -> None:
        self._timer_number += 1
        heapq.heappush(self._timers, (due_ms, self._timer_number, kind, data))

    def _limit(self, dispatch: Dispatch, timeout_s: float | None) -> None:
        if timeout_s is not None and dispatch.lane != BATCH:
            self._at(self._now_ms + timeout_s * 1000 + TIMEOUT_GRACE_MS, "attempt", dispatch.id)

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
        fits = tool.kind in ("inline", "thread") and not _short(policy.timeout_s)
        return BATCH if fits and self.costs.of(tool, policy.cost).cheap else tool.kind

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
    return timeout_s is not None and timeout_s < SHORT_TIMEOUT_S
