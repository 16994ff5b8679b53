"""The scheduler: the only owner of its jobs. It carries the machine's decisions to the store and to the agents.

One loop: take the inbox, let the machine decide, commit, carry out the effects. Nothing leaves this process before
every earlier row is durable. While a commit is under way the machine stands still and reports gather for the next.
"""

import asyncio
import os
import time
import traceback
from collections import OrderedDict
from typing import Any, NamedTuple

import ray

from comagent.actors.agents import AgentPool
from comagent.actors.committing import Committer
from comagent.actors.guard import end_with
from comagent.actors.lease import LeaseKeeper
from comagent.actors.notices import Notices
from comagent.actors.settings import Settings, open_coordination, open_store
from comagent.commits import restored
from comagent.errors import BusyError, ConflictError, StaleEpochError, StoreError, UnknownJobError
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
    Restored,
    Retire,
    Send,
    Step,
    Submitted,
)
from comagent.job import Job
from comagent.machine import Machine
from comagent.plan import Plan
from comagent.protocol import AGAIN, OK, STALE, Answered, Epoch, Report, Running, Unit
from comagent.store.base import Committed, DocumentRow, Exists, JobRow, Refused, Stale, Store, Verdict
from comagent.submission import Submission, plan_from

FULL_ROWS = 50_000
"""Reported rows that may wait for a commit before new jobs are turned away."""
KNOWN_PLANS = 200

UNKNOWN_PLAN = "unknown plan"
ACCEPTED = "accepted"
EXISTS = "exists"


class Ack(NamedTuple):
    """The answer to one submission: accepted (durable now), exists (it was accepted before), or send the plan too."""

    verdict: str
    job_id: str


class KnownPlan(NamedTuple):
    plan: Plan
    process_doc: bytes
    tools_doc: bytes


class Admission(NamedTuple):
    row: JobRow
    answered: "asyncio.Future[Ack]"


def now_ms() -> float:
    return time.time() * 1000


class Scheduler:
    """Owns the jobs of one shard, from one start of this actor to its end."""

    def __init__(self, name: str, settings: dict[str, Any]):
        self._name = name
        self._settings = Settings(**settings)
        self._opening: asyncio.Task[Epoch] | None = None
        self._store: Store = open_store(self._settings)
        self._committer = Committer(self._store, self._settings.shard)
        self._coordination = open_coordination(self._settings)
        self._machine = Machine((0, 0))
        self._inbox: list[Event] = []
        self._rows_waiting = 0
        self._admissions: dict[str, Admission] = {}
        self._plans: OrderedDict[str, KnownPlan] = OrderedDict()
        self._refusals: dict[str, int] = {}
        self._read_anew: set[str] = set()
        """Jobs whose commit was refused, until the machine has them back."""
        self._wake = asyncio.Event()
        self._fenced_out = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._agents: AgentPool
        self._lease: LeaseKeeper
        self._notices: Notices

    # Calls ------------------------------------------------------------------------------------------------------------

    @ray.method
    async def open(self, supervisor: str, agents: list[str]) -> Epoch:
        """Takes a fresh epoch and the shard, and goes on with its jobs. Repeating it is fine.

        `agents` are being started for it; without any, it takes over those of its predecessor.
        """
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open(supervisor, agents))
        try:
            return await asyncio.shield(self._opening)
        except Exception:
            self._opening = None
            raise

    @ray.method
    async def submit(self, submissions: list[Submission]) -> list[Ack]:
        """Accepts jobs: each answer says that the job is durable. Raises BusyError, or ConflictError for a used key."""
        await self._check_owner()
        if self._rows_waiting > FULL_ROWS or len(self._inbox) > FULL_ROWS:
            raise BusyError("the scheduler has more to commit than it can hold")
        return list(await asyncio.gather(*[self._admit(submitted) for submitted in submissions]))

    @ray.method
    async def report(self, agent: str, epoch: Epoch, reports: list[Report], tainted: bool) -> list[Answered]:
        """What became of tasks; answered when it is committed."""
        if epoch != self._machine.epoch or self._fenced_out:
            return [Answered(STALE, {}) for _ in reports]
        answered: asyncio.Future[list[Answered]] = asyncio.get_running_loop().create_future()
        self._rows_waiting += sum(len(report.rows) for report in reports)
        self._tell(Reported((answered, reports), agent, reports, tainted))
        return await answered

    @ray.method
    async def cancel(self, job_id: str) -> None:
        """Asks for a job to be cancelled. Raises UnknownJobError if it does not run here."""
        await self._check_owner()
        if not self._committer.knows(job_id):
            raise UnknownJobError(job_id)
        self._tell(CancelRequested(job_id))

    @ray.method
    async def pulse(self) -> None:
        """Never returns: its error is the news of this scheduler's death."""
        await asyncio.Event().wait()

    @ray.method
    async def beat(self) -> tuple[int, Epoch]:
        return os.getpid(), self._machine.epoch

    @ray.method
    async def take_over(self, shards: list[str], job_ids: list[str]) -> list[str]:
        """Goes on with these jobs of shards that have no living owner; returns those that could be taken."""
        await self._check_owner()
        epoch, own = self._machine.epoch, self._settings.shard
        taken: list[str] = await self._committer.call(
            lambda: self._store.take_over(shards, to=own, epoch=epoch, job_ids=job_ids)
        )
        await self._restore(taken)
        # Those that are here already count too: the call is repeated when an answer is lost.
        return [job_id for job_id in job_ids if self._committer.knows(job_id)]

    @ray.method
    async def release(self) -> None:
        """Gives the lease back: the run ends in good order."""
        await self._lease.release()

    # Start ------------------------------------------------------------------------------------------------------------

    async def _open(self, supervisor: str, agents: list[str]) -> Epoch:
        end_with(self._settings.owner)
        await self._committer.call(self._store.open)
        await asyncio.to_thread(self._coordination.open)
        self._lease = LeaseKeeper(self._coordination, self._settings, self._name, supervisor)
        epoch = await self._lease.take()
        self._machine = Machine(epoch, ref_edges=self._settings.ref_edges)
        taken = await self._committer.take_over(epoch)
        self._notices = Notices(supervisor, self._settings.shard)
        self._agents = AgentPool(
            self._settings, self._name, epoch, on_joined=self._joined, on_lost=self._lost, on_unstarted=self._unstarted
        )
        self._start(self._keep_lease())
        jobs = [event for job_id in taken if (event := await asyncio.to_thread(self._read_job, job_id)) is not None]
        if agents:
            self._agents.expect(agents)
            joined = []
        else:
            joined = [Joined(*each) for each in await self._agents.open()]
        # Agents report as soon as they are fenced: the machine must know what about before it hears of it.
        self._inbox[:0] = [*jobs, *joined]
        self._start(self._run())
        return epoch

    async def _restore(self, job_ids: list[str]) -> None:
        for job_id in job_ids:
            event = await asyncio.to_thread(self._read_job, job_id)
            if event is not None:
                # Before what is reported about it.
                self._inbox.insert(0, event)
                self._wake.set()
            else:
                self._read_anew.discard(job_id)

    def _read_job(self, job_id: str) -> Restored | None:
        record = self._store.job(job_id)
        if record is None or record.ended_ms is not None:
            return None
        plan = plan_from(record.process_doc, record.tools_doc, process_hash=record.process_hash)
        progress = self._store.progress(job_id)
        events = []
        after = 0
        while page := self._store.events(job_id, after_seq=after):
            events += page
            after = page[-1].seq
        sizes: dict[str, DocumentRow] = {}
        for row in progress:
            if row.outcome.document is not None:
                found = self._store.document(row.outcome.document)
                if found is not None:
                    sizes[found.hash] = found
        self._committer.know(job_id, record.seq)
        return restored(record, plan, progress=progress, events=events, sizes=sizes, now_ms=now_ms())

    # Jobs -------------------------------------------------------------------------------------------------------------

    async def _admit(self, submitted: Submission) -> Ack:
        known = self._plans.get(submitted.key)
        if submitted.plan is not None:
            known = KnownPlan(submitted.plan, submitted.process_doc, submitted.tools_doc)
            self._plans[submitted.key] = known
            if len(self._plans) > KNOWN_PLANS:
                self._plans.popitem(last=False)
        elif known is None:
            return Ack(UNKNOWN_PLAN, submitted.job_id)
        else:
            self._plans.move_to_end(submitted.key)
        waiting = self._admissions.get(submitted.job_id)
        if waiting is not None:
            return await asyncio.shield(waiting.answered)
        if self._committer.knows(submitted.job_id):
            return Ack(EXISTS, submitted.job_id)
        at_ms = now_ms()
        plan = known.plan
        row = JobRow(
            submitted.job_id,
            submitted.tenant,
            submitted.principal,
            None,
            self._settings.shard,
            submitted.process_name,
            submitted.process_hash,
            known.process_doc,
            known.tools_doc,
            submitted.inputs_doc,
            submitted.root_path,
            submitted.priority,
            submitted.idem_key,
            submitted.payload_hash,
            int(at_ms),
        )
        answered: asyncio.Future[Ack] = asyncio.get_running_loop().create_future()
        self._admissions[submitted.job_id] = Admission(row, answered)
        self._committer.know(submitted.job_id, 0)
        job = Job(submitted.job_id, plan, inputs=submitted.inputs_doc, priority=submitted.priority)
        self._tell(Submitted(job, None if plan.timeout_s is None else at_ms + plan.timeout_s * 1000))
        return await asyncio.shield(answered)

    # The loop ---------------------------------------------------------------------------------------------------------

    def _tell(self, event: Event) -> None:
        self._inbox.append(event)
        self._wake.set()

    async def _run(self) -> None:
        while not self._fenced_out:
            await self._something_to_do()
            if not self._lease.fresh():
                await self._renew()
                continue
            self._wake.clear()
            events, self._inbox = self._inbox, []
            self._rows_waiting = 0
            if self._read_anew:
                self._read_anew -= {event.job.job_id for event in events if isinstance(event, Restored)}
            step = self._machine.handle(events, now_ms())
            verdicts = await self._commit(step.changes) if step.changes else {}
            self._perform(step, verdicts)

    async def _something_to_do(self) -> None:
        if self._inbox:
            return
        due = self._machine.next_timer_ms()
        if due is None:
            await self._wake.wait()
            return
        try:
            await asyncio.wait_for(self._wake.wait(), max(0.0, due - now_ms()) / 1000)
        except TimeoutError:
            return

    async def _commit(self, changes: list[Change]) -> dict[str, Verdict]:
        waiting = [(change.job.job_id, self._admissions.get(change.job.job_id)) for change in changes]
        admits = {job_id: admission.row for job_id, admission in waiting if admission is not None}

        async def on_error(error: StoreError) -> bool:
            # A client must not wait for a store that can't take its job; it may try again with the same id.
            for job_id in list(admits):
                admission = self._admissions.pop(job_id, None)
                if admission is not None and not admission.answered.done():
                    admission.answered.set_exception(error)
            admits.clear()
            return await self._renew()

        return await self._committer.commit(changes, self._machine.epoch, admits=admits, on_error=on_error)

    def _perform(self, step: Step, verdicts: dict[str, Verdict]) -> None:
        gone: set[str] = set()
        for change in step.changes:
            job_id = change.job.job_id
            verdict = verdicts[job_id]
            admission = self._admissions.pop(job_id, None)
            match verdict:
                case Committed(seq):
                    self._refusals.pop(job_id, None)
                    if admission is not None:
                        admission.answered.set_result(Ack(ACCEPTED, job_id))
                    self._notices.committed(change, seq, self._committer.batch, admitted=admission is not None)
                case Exists(existing, payload_hash):
                    gone.add(job_id)
                    if admission is not None:
                        self._answer_existing(admission, existing, payload_hash)
                case Stale():
                    gone.add(job_id)
                    if admission is not None:
                        admission.answered.set_exception(StaleEpochError(job_id, self._machine.epoch))
                case Refused(problem):
                    gone.add(job_id)
                    if admission is not None:
                        admission.answered.set_exception(StoreError(problem, "Change the job's inputs."))
                    else:
                        self._read_anew.add(job_id)
                        self._start(self._read_again(job_id))
            if change.job.finished:
                self._committer.forget(job_id)
        for job_id in gone:
            self._machine.forget(job_id)
            self._committer.forget(job_id)
        if gone:
            # There may be room now for what others have waiting.
            self._wake.set()
        stale = {job_id for job_id in gone if isinstance(verdicts[job_id], Stale)}
        if stale:
            self._start(self._renew())
        for effect in step.effects:
            match effect:
                case Send(agent, unit, exports, upstream):
                    if unit.job_id not in gone:
                        self._agents.send(agent, unit, exports=exports, upstream=upstream)
                        self._notices.sent(unit)
                case Answer((answered, _), answers):
                    reply = [
                        Answered(STALE if job_id in stale else AGAIN if job_id in self._read_anew else OK, won)
                        for job_id, _, won in answers
                    ]
                    if not answered.done():
                        answered.set_result(reply)
                case Release(dispatch):
                    self._agents.release(dispatch)
                case CancelAt(agent, job_id):
                    if job_id not in gone:
                        self._agents.cancel(agent, job_id)
                case Retire(agent):
                    self._agents.retire(agent)
                case Kill(agent, _):
                    self._agents.kill(agent)
        self._notices.flush()

    def _answer_existing(self, admission: Admission, existing: str, payload_hash: str) -> None:
        if payload_hash == admission.row.payload_hash:
            admission.answered.set_result(Ack(EXISTS, existing))
        else:
            problem = f'the idempotency key "{admission.row.idem_key}" was used for another job'
            admission.answered.set_exception(ConflictError(existing, problem))

    async def _read_again(self, job_id: str) -> None:
        """After a refused commit: the job goes on from what the store has. Until then reports of it must come again."""
        self._refusals[job_id] = self._refusals.get(job_id, 0) + 1
        await self._restore([job_id])
        if self._refusals[job_id] >= 3:
            self._tell(CancelRequested(job_id))

    # Agents and lease -------------------------------------------------------------------------------------------------

    def _joined(self, agent: str, running: list[Running]) -> None:
        self._tell(Joined(agent, running))

    def _lost(self, agent: str, blame: bool) -> None:
        self._tell(Lost(agent, blame))

    def _unstarted(self, agent: str, unit: Unit) -> None:
        """A unit that waited for object refs cannot start: one of them was lost with its agent."""
        answered: asyncio.Future[list[Answered]] = asyncio.get_running_loop().create_future()
        back = Report(unit.dispatch, unit.job_id, [], [part[0] for part in unit.parts], "upstream")
        self._tell(Reported((answered, [back]), agent, [back], tainted=False))

    async def _keep_lease(self) -> None:
        while not self._fenced_out:
            await asyncio.sleep(self._settings.beat_s)
            await self._renew()

    async def _renew(self) -> bool:
        """Whether this scheduler still owns its shard. If not, it does nothing more."""
        held = await self._lease.renew()
        if not held and self._lease.lost:
            self._fenced_out = True
            self._wake.set()
            for admission in self._admissions.values():
                if not admission.answered.done():
                    admission.answered.set_exception(StaleEpochError(admission.row.job_id, self._machine.epoch))
            self._agents.let_go()
            asyncio.get_running_loop().call_later(1.0, os._exit, 0)
        return held

    async def _check_owner(self) -> None:
        """Returns when the shard is this scheduler's, with its jobs. Raises StaleEpochError if it is not any more."""
        if self._opening is not None:
            await asyncio.shield(self._opening)
        if self._fenced_out:
            raise StaleEpochError("", self._machine.epoch)

    # Helpers ----------------------------------------------------------------------------------------------------------

    def _start(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Task[Any]") -> None:
        """A loop that ends by an error leaves a scheduler that does nothing: better it dies and is replaced."""
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None and not self._fenced_out:
            traceback.print_exception(task.exception())
            os._exit(1)


SchedulerActor = ray.remote(Scheduler)
