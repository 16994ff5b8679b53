"""Random processes, run through random histories of agents and owners that die, repeat themselves and come too late.

After each step the machine's books are checked; after each commit the job is rebuilt from the store and compared; at
the end every job must have ended as a plain interpreter of the process says.
"""

import json
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st

from comagent import costs, dispatching
from comagent.events import Change, Send
from comagent.job import HANDLERS, Job
from comagent.machine import Machine
from comagent.plan import OUTPUTS, Plan
from comagent.protocol import BATCH, Row, Unit
from comagent.seats import Seat
from comagent.states import TASK_BY_LABEL, Task
from comagent.store.base import ProgressRow
from tests.unit.model import Owner, World
from tests.unit.model_store import ModelStore
from tests.unit.plays import TOLD, Play, process, task, value_of
from tests.unit.reference import FAILURES, Node, Reference, entry_of

# Histories ------------------------------------------------------------------------------------------------------------


class JobCase(NamedTuple):
    job_id: str
    document: dict[str, Any]
    plays: dict[str, Play]


class Case(NamedTuple):
    agents: int
    ref_edges: bool
    jobs: list[JobCase]
    moves: list[tuple[str, int]]


MIXED = ("wait", "cheap", "cheap", "unknown", "process")
TRIGGERS = ("all_succeeded", "all_succeeded", "all_done", "one_succeeded", "one_failed", "none_failed")
MOVES = (
    *("step", "step", "step", "step", "work", "work", "work", "work", "work", "work", "report", "report", "report"),
    *(
        "deliver",
        "deliver",
        "hand_back",
        "agent_error",
        "agent_error",
        "repeat",
        "die",
        "lose",
        "join",
        "take_over",
        "zombie",
    ),
    *("refuse", "read", "wait", "cancel", "stick", "taint"),
)


@st.composite
def tasks(
    draw: st.DrawFn, letter: str, within: str, inputs: list[str], *, depth: int, tools: tuple[str, ...]
) -> tuple[list[dict[str, Any]], dict[str, Play]]:
    """Tasks whose order in the file says nothing about the order in which they run, and what their tools do."""
    ids = [f"{letter}{number}" for number in draw(st.permutations(range(draw(st.integers(1, 7 if depth == 0 else 3)))))]
    made, plays = [], {}
    above: dict[str, set[str]] = {}
    for number, name in enumerate(ids):
        needs = draw(st.lists(st.sampled_from(ids[:number]), unique=True, max_size=3)) if number else []
        above[name] = {*needs, *(far for need in needs for far in above[need])}
        reads = draw(st.lists(st.sampled_from(sorted(above[name])), unique=True, max_size=2)) if above[name] else []
        entry = task(name, *needs, reads=reads, on_failure=draw(st.sampled_from(("fail", "fail", "continue", "skip"))))
        trigger = draw(st.sampled_from(TRIGGERS))
        if needs or inputs or not trigger.startswith("one_"):
            entry["trigger"] = trigger
        if needs and draw(st.integers(0, 5)) == 5:
            entry["when"] = f'status["{needs[0]}"] != "never"'
        if depth < 2 and draw(st.integers(0, 7)) == 7:
            names = [*entry["with"], "given"]
            entry["with"]["given"] = 1
            del entry["tool"]
            inner, inner_plays = draw(tasks(letter, f"{within}{name}/", names, depth=depth + 1, tools=tools))
            entry["process"] = process(*inner, inputs={each: {} for each in names})
            made.append(entry)
            plays.update(inner_plays)
            for half in (f"{within}{name}//inputs", f"{within}{name}"):
                plays[half] = draw(st.sampled_from((Play(), Play(), Play(), Play(fails=1), Play(kills=2))))
            continue
        if draw(st.booleans()) and inputs:
            entry["with"]["given"] = f"${{inputs.{draw(st.sampled_from(inputs))}}}"
        entry["tool"] = draw(st.sampled_from(tools))
        attempts = draw(st.integers(1, 3))
        if attempts > 1:
            entry["retry"] = {"attempts": attempts, "delay": draw(st.sampled_from((0, 1, 5)))}
        if draw(st.integers(0, 5)) == 5:
            entry["timeout"] = 30
        made.append(entry)
        fails = draw(st.sampled_from((0, 0, 0, 0, 1, 2, 9)))
        plays[within + name] = Play(
            fails=fails,
            status=draw(st.sampled_from(FAILURES)) if fails else Task.FAILED,
            when=draw(st.integers(0, 9)) < 9,
            took_ms=draw(st.sampled_from((0.05, 0.05, 20.0))),
            kills=max(0, draw(st.integers(-15, 4))),
        )
    return sorted(made, key=lambda entry: str(entry["id"])), plays


@st.composite
def jobs(draw: st.DrawFn, letter: str) -> JobCase:
    tools = draw(st.sampled_from((MIXED, MIXED, ("cheap",))))
    made, plays = draw(tasks(letter, "", [], depth=0, tools=tools))
    if draw(st.integers(0, 9)) == 9:
        plays[OUTPUTS] = draw(st.sampled_from((Play(fails=1), Play(kills=2), Play(kills=3))))
    fields: dict[str, Any] = {"priority": draw(st.integers(0, 1))}
    if draw(st.integers(0, 5)) == 5:
        fields["timeout"] = 60
    return JobCase(letter, process(*made, **fields), plays)


@st.composite
def cases(draw: st.DrawFn, *likely: str) -> Case:
    """Processes and what happens to them; the moves in `likely` more often than others."""
    names = "ab"[: draw(st.integers(1, 2))]
    moves = st.tuples(st.sampled_from(MOVES + likely * 4), st.integers(0, 5))
    return Case(
        agents=draw(st.integers(1, 3)),
        ref_edges=draw(st.booleans()),
        jobs=[draw(jobs(name)) for name in names],
        moves=draw(st.lists(moves, min_size=(length := draw(st.integers(0, 100))), max_size=length)),
    )


# What must hold -------------------------------------------------------------------------------------------------------


class Checked(World):
    """A world in which everything that can be checked is checked."""

    def __init__(self, case: Case):
        super().__init__(agents=case.agents, ref_edges=case.ref_edges)
        self.case = case
        self.stopped: set[str] = set()
        """Jobs that somebody asked to cancel."""
        for job in case.jobs:
            self.submit(job.document, job.plays, job_id=job.job_id)

    def move(self, kind: str, n: int) -> None:
        """One thing that may happen; nothing, if there is nobody to whom it could."""
        agents = list(self.agents.values())
        agent = agents[n % len(agents)] if agents else None
        match kind:
            case "step":
                self.step()
            case "refuse":
                self.step(refused=["ab"[n % 2]])
            case "read":
                self.owner.read()
            case "take_over" if n < 3:
                self.take_over()
            case "zombie" if self.zombies:
                self.zombies[n % len(self.zombies)].step()
            case "wait":
                self.now_ms += (10, 500, 2_000, 6_000, 30_000, 70_000)[n]
            case "cancel" if n == 0:
                self.stopped.update(self.store.jobs)
                for job_id in self.store.jobs:
                    self.cancel(job_id)
            case "join":
                self.replace_missing()
        if agent is None:
            return
        hand = agent.hands[n % len(agent.hands)] if agent.hands else None
        match kind:
            case "deliver":
                agent.deliver()
            case "work":
                agent.deliver()
                for busy in agent.busy()[:2]:
                    self.now_ms += 0.1
                    if agent.name in self.agents:
                        agent.work(busy)
            case "report":
                if agent.report() and n > 3:
                    agent.send()
            case "repeat" if agent.unanswered:
                agent.send()
            case "hand_back" if hand is not None:
                agent.hand_back(hand, "slow")
            case "agent_error" if hand is not None:
                agent.hand_back(hand, "a value cannot be read")
            case "stick" if hand is not None and hand.unit.lane != BATCH:
                self.stuck.add(hand.unit.parts[0].path)
            case "taint" if agent.unanswered or agent.outbox:
                agent.tainted = True
            case "die":
                self.die(agent.name)
            case "lose" if not agent.lost:
                self.lose(agent.name)

    def calm_down(self) -> None:
        """No more faults: everything must come to its end. What has no limit does not stay stuck."""
        for job_id, plan in self.plans.items():
            if self.status(job_id) != "cancelling":
                rules = zip(plan.ids, plan.policy, strict=True)
                limited = {path for path, rule in rules if plan.policies[rule].timeout_s is not None}
                self.stuck -= set(plan.ids) - limited
        self.replace_missing()
        self.run()

    def step(self, refused: Any = ()) -> Any:
        step = super().step(refused)
        check_books(self.owner.machine)
        if not self.owner.unread:
            check_work(self.owner.machine)
        return step

    def on_commit(self, owner: Owner, change: Change) -> None:
        job = change.job
        entry = self.store.jobs[job.job_id]
        check_rows(job.plan, entry.outcomes)
        if not job.finished:
            rebuilt = self.store.read(job.job_id, job.plan, self.now_ms).job
            assert rebuilt.snapshot() == job.snapshot()

    def on_send(self, owner: Owner, send: Send) -> None:
        super().on_send(owner, send)
        if owner is self.owner:
            self._check_unit(send.unit)

    def _check_unit(self, unit: Unit) -> None:
        """Whatever leaves the owner may run by what is durable at that moment."""
        borrows = dict(unit.borrows)
        plan = self.plans[unit.job_id]
        entry = self.store.jobs[unit.job_id]
        assert entry.record.status == "running"
        ended = {path: TASK_BY_LABEL[row.outcome.status] for path, row in entry.outcomes.items()}
        failures = Counter(row.event.task for row in entry.events if row.event.kind == "attempt_failed")
        before: set[str] = set()
        assert len({part[2] for part in unit.parts}) == len(unit.parts), "a task twice in a unit"
        for position, (index, attempt, path, _) in enumerate(unit.parts):
            policy = plan.policies[plan.policy[index]]
            assert path not in ended, f"{path} has ended and is sent"
            assert attempt == failures[path] + 1
            needs = [plan.ids[need] for need in plan.needs_of(index)]
            group = plan.results.get(index, plan.group[index])
            failing = self._failing(plan, group, ended)
            if index in plan.results:
                assert group not in failing
                members = members_of(plan, group)
                assert all(member in ended or member in before for member in members)
            elif position in borrows:
                assert policy.trigger == "all_succeeded"
                for need in needs:
                    assert need in borrows[position] or passes(plan, need, ended.get(need))
            elif position < unit.seeds:
                ends = {need: ended.get(need) for need in needs}
                assert triggered(plan, policy.trigger, ends), f"{path} starts early"
                assert not failing or (group in failing and policy.trigger in HANDLERS), f"{path} starts late"
            else:
                assert policy.trigger == "all_succeeded"
                assert not failing
                for need in needs:
                    assert need in before or passes(plan, need, ended.get(need)), f"{path} needs {need}"
            if plan.reads_ends[index]:
                for used in (plan.ids[u] for u in plan.uses_of(index)):
                    if used in ended:
                        assert unit.ends[used][0] == ended[used].label
                    elif plan.plain[index]:
                        assert position not in borrows
                        assert used not in before, f"{path} reads the status of {used}, which ends in its own unit"
            for used in (plan.ids[u] for u in plan.uses_of(index)):
                if ended.get(used) == Task.SUCCEEDED:
                    assert unit.literals[used] == value_of(used)
            before.add(path)

    def _failing(self, plan: Plan, group: int, ended: dict[str, Task]) -> list[int]:
        """Those that have failed of a group and the groups around it."""
        failing = []
        while True:
            for member in members_of(plan, group):
                policy = plan.policies[plan.policy[plan.index[member]]]
                if ended.get(member) in FAILURES and policy.on_failure == "fail" and group not in failing:
                    failing.append(group)
            if group == 0:
                return failing
            group = plan.group[plan.groups[group].result]


def members_of(plan: Plan, group: int) -> list[str]:
    """Tasks of the process, or of a sub-process, without those of others in it and without its own result."""
    return [path for path, own in zip(plan.ids[:-1], plan.group, strict=False) if own == group]


def passes(plan: Plan, path: str, end: Task | None) -> bool:
    policy = plan.policies[plan.policy[plan.index[path]]]
    return end == Task.SUCCEEDED or (end in FAILURES and policy.on_failure == "continue")


def triggered(plan: Plan, trigger: str, needs: dict[str, Task | None]) -> bool:
    over = None not in needs.values()
    match trigger:
        case "all_succeeded":
            return all(passes(plan, need, end) for need, end in needs.items())
        case "one_succeeded":
            return Task.SUCCEEDED in needs.values()
        case "one_failed":
            return any(end in FAILURES for end in needs.values())
        case "none_failed":
            return over and not any(end in FAILURES for end in needs.values())
    return over


def check_rows(plan: Plan, outcomes: dict[str, ProgressRow]) -> None:
    """Nothing is durable before what it was made of."""
    for path, row in outcomes.items():
        index = plan.index[path]
        needs: list[str] = []
        if index in plan.results:
            needs = members_of(plan, plan.results[index])
        elif plan.plain[index] and row.outcome.dispatch != "":
            needs = [plan.ids[need] for need in plan.needs_of(index)]
        for need in needs:
            assert need in outcomes, f"{path} is durable before {need}"
            assert outcomes[need].seq < row.seq


def check_books(machine: Machine) -> None:
    """Tasks, dispatches, agents and the queue must tell the same."""
    queued: Counter[tuple[str, int]] = Counter(machine._alone)
    for levels in machine._queue._lanes.values():
        for level in levels.values():
            assert sorted(level.turns) == sorted(level.tasks)
            for job_id, tasks in level.tasks.items():
                assert tasks
                queued.update((job_id, index) for index in tasks)
    assert len(machine._queue) == sum(queued.values()) - len(machine._alone)
    retries = {data for _, _, kind, data in machine._timers if kind == "retry"}
    for job_id, job in machine.jobs.items():
        assert not job.finished
        assert [*job.rows, *job.events, *job.fresh, *job.retries] == []
        check_job(job)
        for index, state in enumerate(job.state):
            if state == Task.RUNNING:
                dispatch = job.where[index]
                assert index in dispatch.left
                assert machine.dispatches[dispatch.id] is dispatch
            else:
                assert index not in job.where
            if state == Task.READY:
                assert queued[job_id, index] == 1
            if state == Task.RETRYING:
                assert (job_id, index) in retries
    for dispatch_id, dispatch in machine.dispatches.items():
        assert dispatch.left
        assert machine.seats[dispatch.agent].open[dispatch_id] is dispatch
        assert all(machine.jobs[dispatch.job_id].where[index] is dispatch for index in dispatch.left)
    check_seats(machine)


def check_job(job: Job) -> None:
    plan, state = job.plan, job.state
    readers = [0] * len(state)
    for index in range(len(state)):
        if state[index] < Task.SUCCEEDED:
            for used in plan.uses_of(index):
                readers[used] += 1
    assert job.readers == readers
    wanted = {i for i in range(len(state)) if state[i] == Task.SUCCEEDED and readers[i]}
    assert set(job.wires) == wanted, "values must be kept exactly as long as somebody will read them"
    unended = Counter(plan.group[index] for index in range(len(plan)) if state[index] < Task.SUCCEEDED)
    assert job.left == [unended[group] for group in range(len(plan.groups))]


def check_seats(machine: Machine) -> None:
    assert sum(len(seat.open) for seat in machine.seats.values()) == len(machine.dispatches)
    for name, seat in machine.seats.items():
        assert seat.name == name
        used = Counter(dispatch.lane for dispatch in seat.open.values())
        assert {lane: count for lane, count in seat.used.items() if count} == used
        assert seat.batch_tasks == sum(d.size for d in seat.open.values() if d.lane == BATCH)
        alone = [dispatch for dispatch in seat.open.values() if dispatch.alone]
        assert not alone or (len(seat.open) == 1 and seat.boxed)
        assert not (seat.reserved and not machine._alone)


def check_work(machine: Machine) -> None:
    """Nothing waits that an agent has room for."""
    for lane in machine._queue.lanes():
        assert not any(seat.room(lane) for seat in machine.seats.values()), "tasks wait, and agents have room"


def check_end(world: Checked, case: JobCase) -> None:
    """All tasks are accounted for, as the reference says."""
    job_id = case.job_id
    entry = world.store.jobs[job_id]
    plan = world.plans[job_id]
    assert set(entry.outcomes) == set(plan.ids), "every task is accounted for"
    spoiled: dict[tuple[str, int], Task] = {}
    failures: Counter[str] = Counter()
    for row in entry.events:
        if row.event.kind == "attempt_failed":
            body = json.loads(row.event.body)
            path = str(row.event.task)
            failures[path] += 1
            assert body["attempt"] == failures[path], "an attempt counts once"
            if body["error"]["message"] != TOLD:
                spoiled[path, body["attempt"]] = TASK_BY_LABEL[body["status"]]
    actual: dict[str, Task] = {}
    for path, committed in entry.outcomes.items():
        outcome = committed.outcome
        end = actual[path] = TASK_BY_LABEL[outcome.status]
        if end in FAILURES:
            assert outcome.attempt == failures[path] + 1
        elif end == Task.SUCCEEDED:
            assert 1 <= outcome.attempt <= failures[path] + 1, "a late success may be that of an earlier attempt"
        if end in FAILURES and json.loads(outcome.error or b"{}")["message"] != TOLD:
            spoiled[path, outcome.attempt] = end
    result = actual.pop(OUTPUTS)
    reference = Reference(case.document, case.plays, spoiled)
    for path, node in reference.nodes.items():
        if node.makes is not None and reference.fails(node.makes, actual):
            spoiled.pop((path, 1), None)
    ended = reference.outcomes()
    status = entry.record.status
    if status == "succeeded":
        assert result == Task.SUCCEEDED
        assert not reference.fails("", ended)
    elif status == "failed":
        assert result in FAILURES or (reference.fails("", ended) and reference.fails("", actual))
    else:
        assert {"cancelled": job_id in world.stopped, "timed_out": plan.timeout_s is not None}[status]
    for path, end in actual.items():
        failed = [
            within for within in reference.around(reference.nodes[path].within) if reference.fails(within, actual)
        ]
        if status == "succeeded" and not failed:
            assert end == ended[path]
        else:
            check_consistent(reference, reference.nodes[path], actual, failed=failed, status=status)


def check_consistent(
    reference: Reference, node: Node, actual: dict[str, Task], *, failed: list[str], status: str
) -> None:
    """How a task ended in something that failed, or was stopped, must fit how those that it needs ended."""
    end, play = actual[node.path], reference.plays.get(node.path, Play())
    if node.makes is not None and reference.fails(node.makes, actual):
        assert end in (Task.FAILED, Task.SKIPPED, Task.CANCELLED)
        return
    runs = reference.runs(node, actual)
    if end == Task.SUCCEEDED:
        assert runs
        assert play.when
    elif end in FAILURES:
        assert runs
        assert end in reference.attempts(node)
    elif end == Task.CANCELLED:
        assert status in ("cancelled", "timed_out")
    elif status == "failed" and failed == [node.within] and play.when and node.trigger in HANDLERS:
        entered = not node.within or actual[entry_of(node.within)] in (*FAILURES, Task.SUCCEEDED)
        assert not runs or not entered or node.makes is not None, f"{node.path} deals with failures, and was not run"


def played(case: Case) -> Checked:
    """A world in which `case` has happened, to its end."""
    world = Checked(case)
    world.step()
    for kind, n in case.moves:
        world.move(kind, n)
    world.calm_down()
    for job in case.jobs:
        check_end(world, job)
    return world


GENERATED = list(HealthCheck)


HISTORIES = settings(max_examples=300, deadline=None, print_blob=True, suppress_health_check=GENERATED)


@HISTORIES
@given(cases())
def test_every_history_ends_as_the_process_says(case: Case) -> None:
    played(case)


@HISTORIES
@given(cases())
def test_so_does_every_history_of_small_units_that_are_sent_ahead(case: Case) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(costs, "GRAIN_MS", 0.0)
        patch.setattr(dispatching, "LANES_OF_UNIT", 0)
        played(case._replace(ref_edges=True))


# Histories must find what is wrong, or they prove nothing ------------------------------------------------------------


def unfenced(patch: pytest.MonkeyPatch) -> None:
    """The store takes rows from an owner that was replaced."""
    patch.setattr(ModelStore, "fenced", False)


def lost_for_good(patch: pytest.MonkeyPatch) -> None:
    """What a dead agent had in hand is not run again."""

    def lost(machine: Machine, agent: str, *, blame: bool) -> None:
        for dispatch in list(machine.seats.pop(agent, Seat(agent)).open.values()):
            machine._close(dispatch)

    patch.setattr(Machine, "_lost", lost)


def counted_twice(patch: pytest.MonkeyPatch) -> None:
    """A failure that is reported again counts again."""
    take_late = Machine._take_late

    def take(machine: Machine, job: Job, row: Row, label: str, won: dict[int, Row]) -> None:
        if row[2] == Task.FAILED and job.state[row[0]] == Task.RETRYING:
            job.attempt_ended_badly(row[0], Row(*row), label, machine._now_ms)
        take_late(machine, job, row, label, won)

    patch.setattr(Machine, "_take_late", take)


def second_wins(patch: pytest.MonkeyPatch) -> None:
    """Whoever comes last is believed."""

    def take(machine: Machine, job: Job, row: Row, label: str, won: dict[int, Row]) -> None:
        if row[2] == Task.SUCCEEDED:
            job.succeeded(row[0], Row(*row), label, machine._now_ms)

    patch.setattr(Machine, "_take_late", take)


def dropped_early(patch: pytest.MonkeyPatch) -> None:
    """A value goes when its first reader has ended."""

    def release(job: Job, index: int) -> None:
        for used in job.plan.uses_of(index):
            job.readers[used] -= 1
            job.wires.pop(used, None)

    patch.setattr(Job, "_release", release)


def forgotten(patch: pytest.MonkeyPatch) -> None:
    """A new owner does not know which attempts have failed."""
    restore = Job.restore
    patch.setattr(Job, "restore", lambda job, ended, failures, stopping: restore(job, ended, {}, stopping))


def never_tried_again(patch: pytest.MonkeyPatch) -> None:
    """The back-off of a task never ends."""
    patch.setattr(Job, "retry_due", lambda job, index: None)


@pytest.mark.parametrize(
    ("plant", "likely"),
    [
        (unfenced, ("take_over", "zombie")),
        (lost_for_good, ("die",)),
        (counted_twice, ("repeat", "report")),
        (second_wins, ("repeat", "lose")),
        (dropped_early, ()),
        (forgotten, ("take_over",)),
        (never_tried_again, ()),
    ],
)
def test_a_planted_bug_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], likely: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)

    def breaks(case: Case) -> bool:
        try:
            played(case)
        except (AssertionError, KeyError):
            return True
        return False

    generating = settings(
        max_examples=5_000, deadline=None, phases=[Phase.generate], database=None, suppress_health_check=GENERATED
    )
    assert find(cases(*likely), breaks, settings=generating)
