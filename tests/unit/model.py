"""A model of what is around the machine: a store, agents that run units in virtual time, owners that come and go.

The parts under test are the real ones: plans, jobs, machines, and the rows between machine and store. The model agents
follow `comagent.execution`, the owner follows `comagent.actors.scheduler`, the store follows `comagent.store.base`.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from comagent.commits import job_commit
from comagent.events import (
    Answer,
    CancelAt,
    CancelRequested,
    Change,
    Event,
    Joined,
    Kill,
    Lost,
    Release,
    Reported,
    Retire,
    Send,
    Step,
    Submitted,
)
from comagent.job import Job
from comagent.machine import Machine
from comagent.plan import OUTPUTS, Plan
from comagent.protocol import (
    AGAIN,
    BATCH,
    OK,
    STALE,
    Answered,
    DispatchId,
    Epoch,
    Part,
    Report,
    Row,
    Running,
    Unit,
    Wire,
)
from comagent.states import Task
from comagent.store.base import (
    Committed,
    JobRow,
    Outcome,
    Refused,
    Stale,
    Verdict,
)
from tests.unit.model_store import ModelStore
from tests.unit.plays import PLAIN, TOLD, Play, documents, plan_of, value_of


@dataclass(eq=False)
class Hand:
    """A unit in an agent's hands."""

    unit: Unit
    todo: list[int]
    rows: list[Row] = field(default_factory=list)
    not_run: list[int] = field(default_factory=list)
    """Positions of what must not run, because something before it did not succeed."""
    brought: Mapping[str, Wire] = field(default_factory=dict)
    """Values that came by object ref."""
    current: int | None = None
    stopped: bool = False
    """Its attempt was told to stop."""


@dataclass(eq=False)
class Agent:
    """Runs units one attempt at a time, when it is told to. It is alive until it is taken out of `World.agents`."""

    name: str
    world: "World"
    epoch: Epoch
    owner: "Owner"
    lost: bool = False
    """Its owner was told that it is dead: nothing new comes, what it has goes on."""
    hands: list[Hand] = field(default_factory=list)
    transit: list[tuple[Epoch, Send]] = field(default_factory=list)
    exports: dict[DispatchId, dict[str, Wire]] = field(default_factory=dict)
    """Values of units that others wait for, as far as they are committed."""
    cancelled: set[str] = field(default_factory=set)
    outbox: list[Report] = field(default_factory=list)
    unanswered: list[Report] = field(default_factory=list)
    tainted: bool = False

    def deliver(self) -> bool:
        arrived, self.transit = self.transit, []
        for epoch, send in arrived:
            if epoch != self.epoch:
                continue
            waits = [dispatch for dispatch in send.upstream if dispatch not in self.world.values]
            lost = [dispatch for dispatch in send.upstream if self.world.values.get(dispatch, {}) is None]
            if lost:
                self.owner.unstarted(self, send.unit)
            elif waits:
                self.transit.append((epoch, send))
            else:
                self._start(send)
        return len(self.transit) < len(arrived)

    def _start(self, send: Send) -> None:
        parts = [Part._make(part) for part in send.unit.parts]
        brought: dict[str, Wire] = {}
        for dispatch in send.upstream:
            brought.update(self.world.values[dispatch] or {})
        missing = [position for position, paths in send.unit.borrows if any(path not in brought for path in paths)]
        if send.upstream and send.unit.job_id in self.cancelled:
            missing = list(range(len(parts)))
        todo = [position for position in range(len(parts)) if position not in missing]
        hand = Hand(send.unit._replace(parts=parts), todo, brought=brought)
        if send.exports:
            self.exports[send.unit.dispatch] = {}
        if missing:
            self._say(hand, [], missing, "upstream")
        if todo:
            self.hands.append(hand)

    def busy(self) -> list[Hand]:
        """Hands that can go on: all, but of the cheap units only the first."""
        batch = [hand for hand in self.hands if hand.unit.lane == BATCH]
        return [hand for hand in self.hands if hand.unit.lane != BATCH or hand is batch[0]]

    def work(self, hand: Hand) -> bool:
        """Begins or finishes one attempt; False if it goes on for longer."""
        if hand.current is None:
            if hand.todo:
                hand.current = hand.todo.pop(0)
                self.world.check_inputs(hand)
                if self.world.kills(hand.unit.job_id, hand.unit.parts[hand.current].path):
                    self.world.die(self.name)
                return True
        else:
            row = self._outcome(hand)
            if row is None:
                return False
            hand.current = None
            hand.rows.append(row)
            if row.status != Task.SUCCEEDED:
                hand.not_run += [position for position in hand.todo if position >= hand.unit.seeds]
                hand.todo = [position for position in hand.todo if position < hand.unit.seeds]
        if not hand.todo and hand.current is None:
            self._finish(hand)
        return True

    def _finish(self, hand: Hand) -> None:
        self.hands.remove(hand)
        if hand.rows or hand.not_run:
            self._say(hand, hand.rows, hand.not_run, "upstream" if hand.not_run else None)

    def _say(self, hand: Hand, rows: list[Row], not_run: list[int], reason: str | None) -> None:
        back = [hand.unit.parts[position].index for position in not_run]
        plain = [tuple(row) for row in rows]  # as agents send them
        self.outbox.append(Report(hand.unit.dispatch, hand.unit.job_id, plain, back, reason))  # type: ignore[arg-type]

    def _outcome(self, hand: Hand) -> Row | None:
        assert hand.current is not None
        part = hand.unit.parts[hand.current]
        start, now = self.world.now_ms, self.world.now_ms
        if part.path in self.world.stuck and hand.unit.lane != BATCH:
            return None
        if hand.stopped:
            return Row(part.index, part.attempt, Task.CANCELLED, start, now, _error("Cancelled"))
        play = self.world.plays.get((hand.unit.job_id, part.path), Play())
        if not play.when:
            return Row(part.index, part.attempt, Task.SKIPPED, start, now, _error("ConditionFalse"))
        if part.path in self.world.held:
            return None
        start -= play.took_ms
        if part.attempt <= play.fails:
            kind = "TimeoutError" if play.status == Task.TIMED_OUT else play.error
            return Row(part.index, part.attempt, play.status, start, now, _error(kind))
        return Row(part.index, part.attempt, Task.SUCCEEDED, start, now, value_of(part.path))

    def hand_back(self, hand: Hand, reason: str) -> bool:
        """Hands back what it has not begun of a unit."""
        back, hand.todo = hand.todo, []
        if back:
            self._say(hand, [], back, reason)
        if hand.current is None:
            self._finish(hand)
        return bool(back)

    def cancel(self, job_id: str) -> None:
        self.cancelled.add(job_id)
        for hand in [hand for hand in self.hands if hand.unit.job_id == job_id]:
            if hand.todo:
                self.hand_back(hand, "cancelled")
            hand.stopped = True

    def report(self) -> bool:
        """Sends what has ended; one message at a time."""
        if self.unanswered or not self.outbox:
            return False
        self.unanswered, self.outbox = self.outbox, []
        self.send()
        return True

    def send(self) -> None:
        self.owner.hear(self, self.epoch, list(self.unanswered))

    def answered(self, reports: list[Report], answers: list[Answered]) -> None:
        if reports != self.unanswered:
            return
        self.unanswered = []
        again = []
        for report, answer in zip(reports, answers, strict=True):
            if answer.verdict == AGAIN:
                again.append(report)
            elif report.dispatch in self.exports:
                self._settle(report, answer)
        self.outbox = again + self.outbox

    def _settle(self, report: Report, answer: Answered) -> None:
        plan = self.world.plans[report.job_id]
        values = self.exports[report.dispatch]
        for row in report.rows:
            committed = answer.won.get(row[0], row)
            if committed[2] == Task.SUCCEEDED and committed[5] is not None:
                values[plan.ids[row[0]]] = committed[5]
        if all(hand.unit.dispatch != report.dispatch for hand in self.hands):
            self.world.values[report.dispatch] = self.exports.pop(report.dispatch)

    def fence(self, epoch: Epoch, owner: "Owner") -> list[Running]:
        """Drops what it has not begun, and says what it has in hand."""
        assert epoch > self.epoch
        self.epoch, self.owner, self.lost = epoch, owner, False
        running = []
        for hand in list(self.hands):
            hand.todo = []
            begun = [(row.index, row.attempt) for row in hand.rows]
            if hand.current is not None:
                begun.append(hand.unit.parts[hand.current][:2])
                running.append(Running(hand.unit.dispatch, hand.unit.job_id, begun, hand.unit.lane))
            else:
                self._finish(hand)
        self.unanswered = [report._replace(not_run=[]) for report in self.unanswered if report.rows]
        self.outbox = [report._replace(not_run=[]) for report in self.outbox if report.rows]
        for report in [*self.unanswered, *self.outbox]:
            parts = [(row[0], row[1]) for row in report.rows]
            running.append(Running(report.dispatch, report.job_id, parts, "async"))
        self.outbox, self.unanswered = self.unanswered + self.outbox, []
        kept = {each.dispatch for each in running}
        self._lose_exports([dispatch for dispatch in self.exports if dispatch not in kept])
        return running

    def end(self) -> None:
        self._lose_exports(list(self.exports))
        self._lose_exports([send.unit.dispatch for _, send in self.transit if send.exports])

    def _lose_exports(self, dispatches: list[DispatchId]) -> None:
        for dispatch in dispatches:
            self.exports.pop(dispatch, None)
            self.world.values[dispatch] = None


def _error(kind: str) -> bytes:
    return json.dumps({"type": kind, "message": TOLD}).encode()


class Owner:
    """What a scheduler does with a machine, without what makes it an actor."""

    def __init__(self, world: "World", machine: Machine):
        self.world = world
        self.machine = machine
        self.inbox: list[Event] = []
        self.admissions: dict[str, JobRow] = {}
        self.exported: set[DispatchId] = set()
        self.unread: list[str] = []
        """Jobs to be read anew, after a refused commit."""

    def hear(self, agent: Agent, epoch: Epoch, reports: list[Report]) -> None:
        if epoch == self.machine.epoch:
            self.inbox.append(Reported((agent, reports), agent.name, reports, agent.tainted))
        else:
            agent.answered(reports, [Answered(STALE, {}) for _ in reports])

    def unstarted(self, agent: Agent, unit: Unit) -> None:
        """An object ref of a unit was lost, so that it cannot start."""
        back = Report(unit.dispatch, unit.job_id, [], [part[0] for part in unit.parts], "upstream")
        self.inbox.append(Reported((agent, [back]), agent.name, [back], tainted=False))

    def read(self) -> bool:
        """Reads what the store has of jobs whose commits were refused. Until then nobody may think them committed."""
        unread, self.unread = self.unread, []
        for job_id in unread:
            if self.world.store.jobs[job_id].record.ended_ms is None:
                self.inbox.insert(0, self.world.store.read(job_id, self.world.plans[job_id], self.world.now_ms))
        return bool(unread)

    def step(self, refused: frozenset[str] = frozenset()) -> Step:
        """One turn of the loop: decide, commit, perform."""
        world = self.world
        events, self.inbox = self.inbox, []
        step = self.machine.handle(events, world.now_ms)
        admitted = [change for change in step.changes if change.job.job_id in self.admissions]
        commits = [
            job_commit(
                change,
                epoch=self.machine.epoch,
                admit=self.admissions.get(change.job.job_id),
                at_ms=int(world.now_ms),
            )
            for change in step.changes
        ]
        answered = world.store.commit(commits, refused - {change.job.job_id for change in admitted})
        verdicts = {change.job.job_id: v for change, v in zip(step.changes, answered, strict=True)}
        gone: set[str] = set()
        for change in step.changes:
            self.admissions.pop(change.job.job_id, None)
            verdict = verdicts[change.job.job_id]
            if isinstance(verdict, Committed):
                world.on_commit(self, change)
                continue
            gone.add(change.job.job_id)
            self.machine.forget(change.job.job_id)
            if isinstance(verdict, Refused):
                self.unread.append(change.job.job_id)
        for effect in step.effects:
            match effect:
                case Send() as send:
                    if send.unit.job_id not in gone:
                        assert self.exported.issuperset(send.upstream), "values are taken that are not there any more"
                        if send.exports:
                            self.exported.add(send.unit.dispatch)
                        world.on_send(self, send)
                case Release(dispatch):
                    self.exported.discard(dispatch)
                case Answer((agent, reports), answers):
                    agent.answered(reports, [self._answer(job_id, verdicts, won) for job_id, _, won in answers])
                case CancelAt(name, job_id):
                    found = self._reach(name)
                    if found is not None and job_id not in gone:
                        found.cancel(job_id)
                case Retire():
                    world.join(self)
                case Kill(name, _):
                    world.kill(self, name)
        return step

    def _answer(self, job_id: str, verdicts: Mapping[str, Verdict], won: dict[int, Row]) -> Answered:
        if isinstance(verdicts.get(job_id), Stale):
            return Answered(STALE, {})
        return Answered(AGAIN, {}) if job_id in self.unread else Answered(OK, won)

    def _reach(self, name: str) -> Agent | None:
        agent = self.world.agents.get(name)
        return agent if agent is not None and agent.epoch == self.machine.epoch else None


class World:
    """Jobs, agents, the owner, and former owners who have not noticed. Nothing happens by itself."""

    def __init__(self, *, agents: int = 1, ref_edges: bool = False):
        self.now_ms = 1_000_000.0
        self.store = ModelStore()
        self.plans: dict[str, Plan] = {}
        self.plays: dict[tuple[str, str], Play] = {}
        """What tools do, by job and task; they succeed where nothing is said."""
        self.held: set[str] = set()
        """Tasks whose attempts go on until they are let go."""
        self.stuck: set[str] = set()
        """The same, but they can't even be stopped."""
        self.sent: list[tuple[str, Unit]] = []
        """Everything that was sent, and to whom."""
        self.values: dict[DispatchId, dict[str, Wire] | None] = {}
        """What units export, once all of it is committed; None where it is lost."""
        self.agents: dict[str, Agent] = {}
        self.zombies: list[Owner] = []
        self._ref_edges = ref_edges
        self._size = agents
        self._number = 0
        self.owner = Owner(self, Machine((0, 1), ref_edges=ref_edges))
        for _ in range(agents):
            self.join(self.owner)

    # What may happen --------------------------------------------------------------------------------------------------

    def submit(self, document: Mapping[str, Any], plays: Mapping[str, Play] = PLAIN, *, job_id: str = "job") -> None:
        process_doc, tools_doc = documents(document)
        plan = self.plans[job_id] = plan_of(document)
        self.plays.update({(job_id, path): play for path, play in plays.items()})
        priority = int(document.get("priority", 0))
        self.owner.admissions[job_id] = JobRow(
            job_id, "", "", None, "", "model", "model", process_doc, tools_doc, b"{}", "", priority, job_id, "",
            int(self.now_ms),
        )  # fmt: skip
        job = Job(job_id, plan, inputs=b"{}", priority=priority)
        deadline = None if plan.timeout_s is None else self.now_ms + plan.timeout_s * 1000
        self.owner.inbox.append(Submitted(job, deadline))

    def cancel(self, job_id: str = "job") -> None:
        self.owner.inbox.append(CancelRequested(job_id))

    def join(self, owner: Owner) -> None:
        self._number += 1
        agent = Agent(f"agent-{self._number}", self, owner.machine.epoch, owner)
        self.agents[agent.name] = agent
        owner.inbox.append(Joined(agent.name, []))

    def lose(self, name: str, *, blame: bool = True) -> None:
        """The owner is told that an agent is dead. It lives on, unheard of, until it is killed."""
        agent = self.agents[name]
        agent.lost = True
        agent.owner.inbox.append(Lost(name, blame))

    def die(self, name: str) -> None:
        """An agent ends, with all that it has."""
        agent = self.agents.pop(name)
        agent.end()
        if not agent.lost:
            agent.owner.inbox.append(Lost(name, True))

    def kills(self, job_id: str, path: str) -> bool:
        """Whether an attempt at a task takes its agent with it."""
        play = self.plays.get((job_id, path), Play())
        if play.kills:
            self.plays[job_id, path] = play._replace(kills=play.kills - 1)
        return play.kills > 0

    def kill(self, owner: Owner, name: str) -> None:
        """The owner ends an agent and starts another, unless it did that before."""
        agent = self.agents.pop(name, None)
        if agent is not None:
            agent.end()
            if agent.owner is not owner:
                agent.owner.inbox.append(Lost(name, blame=True))
        if owner is self.owner and len(self.healthy()) < self._size:
            self.join(owner)

    def take_over(self) -> None:
        """Another owner takes the jobs and the agents. The former one is not told."""
        self.zombies.append(self.owner)
        epoch = (0, self.owner.machine.epoch[1] + 1)
        owner = self.owner = Owner(self, Machine(epoch, ref_edges=self._ref_edges))
        for job_id in self.store.take_over(epoch):
            owner.inbox.append(self.store.read(job_id, self.plans[job_id], self.now_ms))
        for agent in self.agents.values():
            owner.inbox.append(Joined(agent.name, agent.fence(epoch, owner)))
        self.replace_missing()

    def replace_missing(self) -> bool:
        missing = self._size - len(self.healthy())
        for _ in range(missing):
            self.join(self.owner)
        return missing > 0

    def healthy(self) -> list[Agent]:
        return [agent for agent in self.agents.values() if not agent.lost and agent.owner is self.owner]

    # Going on ---------------------------------------------------------------------------------------------------------

    def step(self, refused: Iterable[str] = ()) -> Step:
        return self.owner.step(frozenset(refused))

    def settle(self) -> None:
        """Everything that can happen now happens; no time passes but what attempts take."""
        for _ in range(3_000):
            self.step()
            if not self._go_on():
                return
        raise AssertionError("it goes on for ever")

    def _go_on(self) -> bool:
        moved = self.owner.read() or bool(self.owner.inbox)
        for agent in list(self.agents.values()):
            moved |= agent.deliver()
            for hand in agent.busy():
                moved |= agent.name in self.agents and agent.work(hand)
            moved |= agent.name in self.agents and agent.report()
        moved |= self.replace_missing()
        due = self.owner.machine.next_timer_ms()
        return moved or (due is not None and due <= self.now_ms)

    def wait(self, seconds: float) -> None:
        """Time passes, and with it everything that is due."""
        until = self.now_ms + seconds * 1000
        self.settle()
        while (due := self.owner.machine.next_timer_ms()) is not None and due <= until:
            self.now_ms = max(self.now_ms, due)
            self.settle()
        self.now_ms = until
        self.settle()

    def run(self) -> None:
        """Goes on until all jobs have ended."""
        for _ in range(1_000):
            self.settle()
            if all(entry.record.ended_ms is not None for entry in self.store.jobs.values()):
                return
            due = self.owner.machine.next_timer_ms()
            assert due is not None, "nothing more happens, and not all jobs have ended"
            self.now_ms = max(self.now_ms, due)
        raise AssertionError("the jobs do not end")

    # What became of it ------------------------------------------------------------------------------------------------

    def status(self, job_id: str = "job") -> str:
        """What is durable of a job's status."""
        return self.store.jobs[job_id].record.status

    def outcome(self, path: str, job_id: str = "job") -> Outcome:
        return self.store.jobs[job_id].outcomes[path].outcome

    def statuses(self, job_id: str = "job") -> dict[str, str]:
        """The committed outcomes of a job's tasks."""
        outcomes = self.store.jobs[job_id].outcomes
        return {path: row.outcome.status for path, row in outcomes.items() if path != OUTPUTS}

    def events(self, job_id: str = "job") -> list[tuple[str, str | None]]:
        return [(row.event.kind, row.event.task) for row in self.store.jobs[job_id].events]

    def running(self) -> dict[str, str]:
        """Attempts that agents have begun, and on which agent."""
        return {
            hand.unit.parts[hand.current].path: agent.name
            for agent in self.agents.values()
            for hand in agent.hands
            if hand.current is not None
        }

    def dispatched(self) -> list[list[str]]:
        """The tasks of each unit that was sent so far."""
        return [[part[2] for part in unit.parts] for _, unit in self.sent]

    # What is checked on the way ---------------------------------------------------------------------------------------

    def on_commit(self, owner: Owner, change: Change) -> None:
        """Called after a job's change became durable, before its effects."""

    def on_send(self, owner: Owner, send: Send) -> None:
        """Called for each unit that leaves the owner."""
        self.sent.append((send.agent, send.unit))
        agent = self.agents.get(send.agent)
        if agent is not None and not agent.lost:
            agent.transit.append((owner.machine.epoch, send))
        elif send.exports:
            self.values[send.unit.dispatch] = None

    def check_inputs(self, hand: Hand) -> None:
        """Called when an agent begins an attempt: what it reads must be in the unit, or have been made by it."""
        unit = hand.unit
        assert hand.current is not None
        part = unit.parts[hand.current]
        plan = self.plans[unit.job_id]
        made = {row.index for row in hand.rows if row.status == Task.SUCCEEDED}
        earlier = {other.index for other in unit.parts[: hand.current]}
        if not plan.plain[part.index]:
            return
        for need in plan.needs_of(part.index):
            assert need not in earlier or need in made, f"{part.path} runs in its unit before what it needs"
            path = plan.ids[need]
            committed = self.store.jobs[unit.job_id].outcomes.get(path)
            if need in plan.uses_of(part.index) and committed is not None and committed.outcome.status == "succeeded":
                wire = unit.literals.get(path, hand.brought.get(path))
                assert need in made or wire == value_of(path), f"{part.path} lacks {path}"
