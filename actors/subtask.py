"""The agent: runs units and reports what became of them. All of what it decides is in `comagent.execution`."""

import asyncio
import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from comagent.actors.guard import end_with
from comagent.actors.names import NAMESPACE
from comagent.errors import StaleEpochError
from comagent.execution import Executor
from comagent.output import cap_output
from comagent.protocol import AGAIN, STALE, Answered, DispatchId, Epoch, Large, Report, Row, Running, Unit, Wire
from comagent.states import Task
from comagent.store.documents import Documents

REMEMBERED = 10_000
"""Dispatches whose repetition is recognised."""
FETCH_S = 10.0


def publish(data: bytes) -> Any:
    """An object ref of a large value, for the agents that read it; None where it would crowd out the others."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    room = resources.get("object_store_memory", 0.0)
    if len(data) > room / 3:
        return None
    # A buffer is copied into the object store once and read from there without a copy; bytes would be pickled.
    return ray.put(pickle.PickleBuffer(data))


class Exports(NamedTuple):
    """The values of a unit that others wait for."""

    settled: "asyncio.Future[None]"
    """Done when all reports of the unit are answered."""
    values: dict[str, Wire]
    paths: dict[int, str]


class SubTaskAgent:
    """Runs what its scheduler sends. It serves one shard, obeys the highest epoch it has seen, and retries nothing."""

    def __init__(self, name: str, documents: str, owner: tuple[int, float] | None):
        self._name = name
        self._documents = Documents(Path(documents))
        self._owner = owner
        self._epoch: Epoch = (0, 0)
        self._scheduler: Any = None
        self._fenced: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._executor: Executor | None = None
        self._seen: OrderedDict[DispatchId, None] = OrderedDict()
        self._outbox: list[Report] = []
        self._unanswered: list[Report] = []
        self._tainted = False
        self._reporter: asyncio.Task[None] | None = None
        self._exports: dict[DispatchId, Exports] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._tasks: set[asyncio.Task[None]] = set()

    @ray.method
    async def open(self) -> int:
        """Gets ready; returns the process id. Repeating it is fine."""
        self._ready()
        return os.getpid()

    @ray.method
    async def accept(self, epoch: Epoch, units: list[Unit]) -> str:
        """Takes units to run. Those it has already are not taken twice."""
        executor = self._ready()
        self._check(epoch)
        for unit in units:
            if unit.dispatch in self._seen:
                continue
            self._remember(unit.dispatch)
            large = {path: wire for path, wire in unit.literals.items() if isinstance(wire, Large)}
            if isinstance(unit.inputs, Large):
                large["/inputs"] = unit.inputs
            if large:
                self._background(self._fetch_and_start(unit, large))
            else:
                executor.start(unit, {})
        return "taken"

    @ray.method(num_returns=2)
    async def run(self, epoch: Epoch, unit: Unit, *upstream: dict[str, Wire]) -> tuple[str, dict[str, Wire]]:
        """Runs one unit, with the values that other agents hand over; Ray starts this call when all of them exist.

        Returns when what became of it is committed, and with that the values that it exports.
        """
        executor = self._ready()
        self._check(epoch)
        brought = {path: wire for values in upstream for path, wire in values.items()}
        missing = [position for position, paths in unit.borrows if any(path not in brought for path in paths)]
        if unit.job_id in self._cancelled:
            missing = list(range(len(unit.parts)))
        exports = self._exports[unit.dispatch] = Exports(
            asyncio.get_running_loop().create_future(), {}, {part[0]: part[2] for part in unit.parts}
        )
        try:
            large = {path: wire for path, wire in {**brought, **unit.literals}.items() if isinstance(wire, Large)}
            if isinstance(unit.inputs, Large):
                large["/inputs"] = unit.inputs
            fetched = {path: wire for path, wire in brought.items() if isinstance(wire, bytes)}
            fetched |= {path: await self._fetch(wire) for path, wire in large.items()}
            self._check(epoch)
            executor.start(unit, fetched, missing=missing)
            await exports.settled
        finally:
            del self._exports[unit.dispatch]
        return "committed", exports.values

    @ray.method
    async def pulse(self) -> None:
        """Never returns: its error is the news of this agent's death."""
        await asyncio.Event().wait()

    @ray.method(concurrency_group="control")
    async def beat(self) -> int:
        """Answers at once, whatever the agent is busy with."""
        return os.getpid()

    @ray.method(concurrency_group="control")
    async def fence(self, epoch: Epoch, scheduler: str) -> list[Running]:
        """From now on `scheduler` owns this agent. Returns the attempts in hand, which will be reported to it."""
        if epoch < self._epoch:
            raise StaleEpochError("", epoch)
        self._epoch = epoch
        following = asyncio.run_coroutine_threadsafe(self._follow(epoch, scheduler), self._main_loop())
        return await asyncio.wrap_future(following)

    @ray.method(concurrency_group="control")
    async def cancel(self, epoch: Epoch, job_id: str) -> None:
        """Stops what runs of a job, and hands back what has not begun."""
        if epoch >= self._epoch and self._executor is not None:
            self._main_loop().call_soon_threadsafe(self._cancel, job_id)

    def _cancel(self, job_id: str) -> None:
        # Units that still wait for their object refs come later: they are handed back then.
        self._cancelled[job_id] = None
        if len(self._cancelled) > REMEMBERED:
            self._cancelled.popitem(last=False)
        self._ready().cancel(job_id)

    def _main_loop(self) -> asyncio.AbstractEventLoop:
        assert self._loop is not None, "the agent was not opened"
        return self._loop

    def _ready(self) -> Executor:
        if self._executor is None:
            self._loop = asyncio.get_running_loop()
            self._fenced = asyncio.Event()
            self._executor = Executor(self._documents, self._report, publish=publish)
            cap_output()
            end_with(self._owner)
        return self._executor

    def _check(self, epoch: Epoch) -> None:
        if epoch != self._epoch:
            raise StaleEpochError("", epoch)

    def _remember(self, dispatch: DispatchId) -> None:
        self._seen[dispatch] = None
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)

    def _background(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _follow(self, epoch: Epoch, scheduler: str) -> list[Running]:
        executor = self._ready()
        self._scheduler = await asyncio.to_thread(ray.get_actor, scheduler, NAMESPACE)
        running = executor.fence(epoch)
        for report in [*self._unanswered, *self._outbox]:
            if report.rows:
                ended = [(row[0], row[1]) for row in report.rows]
                running.append(Running(report.dispatch, report.job_id, ended, "async"))
        kept = {each.dispatch for each in running}
        for dispatch, exports in self._exports.items():
            if dispatch not in kept and not exports.settled.done():
                exports.settled.set_exception(StaleEpochError("", epoch))
        # What never began is dropped, and so is the news of it.
        self._outbox = [report._replace(not_run=[]) for report in self._outbox if report.rows]
        assert self._fenced is not None
        self._fenced.set()
        return running

    async def _fetch_and_start(self, unit: Unit, large: dict[str, Large]) -> None:
        executor = self._ready()
        epoch = self._epoch
        try:
            fetched = {path: await self._fetch(wire) for path, wire in large.items()}
        except Exception as error:  # noqa: BLE001  # whatever it is, the machine is told
            back = [part[0] for part in unit.parts]
            self._report(Report(unit.dispatch, unit.job_id, [], back, f"a value cannot be read: {error}"), False)
            return
        if epoch == self._epoch:
            executor.start(unit, fetched)

    async def _fetch(self, wire: Large) -> bytes:
        """A large value: from the agent that made it, or else from the document."""
        if wire.ref is not None:
            try:
                return bytes(memoryview(await asyncio.wait_for(asyncio.wrap_future(wire.ref.future()), FETCH_S)))
            except (RayError, TimeoutError):
                return await asyncio.to_thread(self._documents.get, wire.hash)
        return await asyncio.to_thread(self._documents.get, wire.hash)

    def _report(self, report: Report, tainted: bool) -> None:
        self._outbox.append(report)
        self._tainted |= tainted
        if self._reporter is None:
            self._reporter = asyncio.get_running_loop().create_task(self._report_all())

    async def _report_all(self) -> None:
        """Sends what has ended, one message at a time: what ends meanwhile goes with the next."""
        try:
            while self._outbox:
                self._unanswered, self._outbox = self._outbox, []
                answers = await self._answered()
                again = []
                for report, answer in zip(self._unanswered, answers, strict=True):
                    if answer.verdict == AGAIN:
                        again.append(report)
                    elif report.dispatch in self._exports:
                        self._settle(report, answer)
                self._outbox = again + self._outbox
                self._unanswered = []
        finally:
            self._reporter = None

    def _settle(self, report: Report, answer: Answered) -> None:
        """Passes committed values on: the unit's own, and where another attempt was committed first, that one's."""
        exports = self._exports[report.dispatch]
        for reported in map(Row._make, report.rows):
            row = Row._make(answer.won.get(reported.index, reported))
            if row.status == Task.SUCCEEDED and row.payload is not None:
                exports.values[exports.paths[reported.index]] = row.payload
        more = self._ready().has(report.dispatch) or any(r.dispatch == report.dispatch for r in self._outbox)
        if not more and not exports.settled.done():
            exports.settled.set_result(None)

    async def _answered(self) -> list[Answered]:
        """The answers to what is unanswered. A silent scheduler is given up when another one fences us."""
        assert self._fenced is not None
        while True:
            self._fenced.clear()
            tainted = self._tainted
            call = asyncio.ensure_future(
                asyncio.wrap_future(
                    self._scheduler.report.remote(self._name, self._epoch, self._unanswered, tainted).future()
                )
            )
            fenced = asyncio.ensure_future(self._fenced.wait())
            await asyncio.wait({call, fenced}, return_when=asyncio.FIRST_COMPLETED)
            # Once it has been told what is in hand, the successor expects it, whatever its predecessor answers.
            if not self._fenced.is_set():
                fenced.cancel()
                error = call.exception()
                if error is None:
                    answers: list[Answered] = call.result()
                    return answers
                if not isinstance(error, RayError):
                    return [Answered(STALE, {}) for _ in self._unanswered]
                await self._fenced.wait()
            else:
                call.cancel()
            self._unanswered = [report._replace(not_run=[]) for report in self._unanswered]


# Ray's stubs know only the plain form of the decorator.
SubTaskAgentActor: Any = ray.remote(concurrency_groups={"control": 100})(SubTaskAgent)  # type: ignore[call-overload]
