"""The supervisor: watches and answers. It decides nothing about jobs, and all it knows can be read from the store."""

import asyncio
import contextlib
import os
import signal
import time
from array import array
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import ray
from ray.exceptions import ActorDiedError, RayError

from comagent.actors.guard import end_with
from comagent.actors.names import NAMESPACE, options, scheduler_name
from comagent.actors.notices import Notice, Started
from comagent.actors.scheduler import SchedulerActor
from comagent.actors.settings import Settings, open_coordination, open_store
from comagent.coordination.watch import LeaseWatch
from comagent.errors import UnknownJobError
from comagent.job_view import JobView, Progress, ended_view, failures_of, progress_of
from comagent.states import JOB_ENDS
from comagent.store.documents import Documents

POLL_S = 30.0
"""Longest that a client's question is held before it is answered with what is known."""
KEPT_JOBS = 10_000
"""Ended jobs whose view is kept in memory."""
RETRY_S = 0.2
START_S = 120.0
"""A new scheduler that has not taken its shard by then stands still."""
BEAT_S = 1.0


class Supervisor:
    """Keeps a view of each job of one shard, answers those who wait, and replaces a scheduler that is gone."""

    def __init__(self, name: str, settings: dict[str, Any]):
        self._name = name
        self._settings = Settings(**settings)
        self._store = open_store(self._settings)
        self._coordination = open_coordination(self._settings)
        self._documents = Documents(Path(self._settings.documents))
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="read")
        self._views: dict[str, JobView] = {}
        self._changed: dict[str, asyncio.Event] = {}
        self._ended: dict[str, set[asyncio.Event]] = {}
        self._opening: asyncio.Task[None] | None = None
        self._replaced = 0
        """Schedulers that were replaced."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closing = False

    # Calls ------------------------------------------------------------------------------------------------------------

    @ray.method
    async def open(self) -> None:
        """Gets ready. Every other call does so too: a restarted supervisor has forgotten everything."""
        await self._ready()

    async def _ready(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        try:
            await asyncio.shield(self._opening)
        except Exception:
            self._opening = None
            raise

    @ray.method
    async def notice(self, notices: list[Notice | Started]) -> None:
        """What the scheduler has committed or sent."""
        await self._ready()
        for news in notices:
            view = self._views.get(news.job_id)
            if isinstance(news, Started):
                if view is not None:
                    view.started(news.tasks)
            else:
                if view is None:
                    view = self._keep(JobView(news.job_id, news.total, known=news.admitted))
                indices = array("I")
                indices.frombytes(news.tasks)
                view.ended(indices, news.states, seq=news.seq)
                if news.status is not None:
                    view.status = news.status
                if news.status in JOB_ENDS:
                    view.result, view.error = news.result, news.error
            self._wake(news.job_id, ended=view is not None and view.over)

    @ray.method
    async def wait(self, job_ids: list[str], timeout_s: float) -> dict[str, JobView]:
        """Views of those of these jobs that have ended, as soon as one has; empty if none does in time."""
        await self._ready()
        deadline = time.monotonic() + min(timeout_s, POLL_S)
        while True:
            replaced = self._replaced
            views = {job_id: await self._view(job_id) for job_id in job_ids}
            ended = {job_id: view for job_id, view in views.items() if view.over}
            left = deadline - time.monotonic()
            if ended or left <= 0:
                return ended
            if replaced == self._replaced:
                await self._any_end(job_ids, left)

    @ray.method
    async def view(self, job_id: str) -> JobView:
        """What is known of a job. Raises UnknownJobError."""
        await self._ready()
        return await self._view(job_id)

    @ray.method
    async def progress(self, job_id: str, after_seq: int, timeout_s: float) -> Progress:
        """What was committed of a job after `after_seq`, as soon as there is something, and what runs."""
        await self._ready()
        view = await self._view(job_id)
        running = dict(view.running)
        deadline = time.monotonic() + min(timeout_s, POLL_S)
        while view.seq <= after_seq and not view.over and view.running == running:
            left = deadline - time.monotonic()
            if left <= 0:
                break
            await self._change(job_id, left)
            view = await self._view(job_id)
        rows = await self._read(lambda: self._store.stream(job_id, after_seq=after_seq, limit=5_000))
        return progress_of(view, rows)

    @ray.method
    async def failures(self, job_id: str) -> list[tuple[str, str, str]]:
        """(path, status, what happened) of the tasks that failed, in the order of their ends."""
        await self._ready()
        outcomes = await self._read(lambda: self._store.progress(job_id))
        return failures_of(outcomes)

    @ray.method
    async def document(self, digest: str) -> bytes:
        """A value that is too large for a row."""
        return bytes(await self._read(lambda: self._documents.get(digest)))

    @ray.method
    async def pulse(self) -> None:
        """Never returns: its error is the news of this supervisor's death."""
        await asyncio.Event().wait()

    @ray.method
    async def beat(self) -> int:
        await self._ready()
        return os.getpid()

    @ray.method
    async def close(self) -> None:
        """The run ends in good order: a scheduler that goes now is not replaced."""
        self._closing = True

    # Views ------------------------------------------------------------------------------------------------------------

    async def _view(self, job_id: str) -> JobView:
        view = self._views.get(job_id)
        if view is not None and (view.known or view.over):
            return view
        while True:
            replaced = self._replaced
            record = await self._read(lambda: self._store.job(job_id))
            if record is None:
                raise UnknownJobError(job_id)
            outcomes = await self._read(lambda: self._store.progress(job_id))
            if replaced == self._replaced:
                break
        read = ended_view(record, outcomes)
        view = self._views.get(job_id)
        if view is None or view.seq <= read.seq:
            view = self._keep(read)
        return view

    def _keep(self, view: JobView) -> JobView:
        self._views[view.job_id] = view
        if len(self._views) > KEPT_JOBS:
            for job_id in [j for j, v in self._views.items() if v.over][: KEPT_JOBS // 10]:
                del self._views[job_id]
        return view

    def _read_anew(self) -> None:
        """After a scheduler's death: its last commits may be among those that it did not live to tell."""
        self._replaced += 1
        for job_id, view in self._views.items():
            if not view.over:
                view.known = False
                self._wake(job_id, ended=True)

    def _wake(self, job_id: str, *, ended: bool) -> None:
        event = self._changed.pop(job_id, None)
        if event is not None:
            event.set()
        if ended:
            for event in self._ended.pop(job_id, ()):
                event.set()

    async def _change(self, job_id: str, timeout_s: float) -> None:
        """Returns when something is new about a job."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._changed.setdefault(job_id, asyncio.Event()).wait(), timeout_s)

    async def _any_end(self, job_ids: list[str], timeout_s: float) -> None:
        """Returns when one of these jobs has ended. What else happens to them costs those who wait for many nothing."""
        event = asyncio.Event()
        for job_id in job_ids:
            self._ended.setdefault(job_id, set()).add(event)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout_s)
        for job_id in job_ids:
            waiting = self._ended.get(job_id, set())
            waiting.discard(event)
            if not waiting:
                self._ended.pop(job_id, None)

    async def _read(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    # The scheduler ----------------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        end_with(self._settings.owner)
        await self._read(self._store.open)
        await asyncio.to_thread(self._coordination.open)
        task = asyncio.ensure_future(self._supervise())
        self._tasks.add(task)

    async def _supervise(self) -> None:
        """Follows the scheduler that has the lease, and replaces it when it is gone or stands still."""
        watch = LeaseWatch(self._settings.ttl_s)
        pulse: Any = None
        followed = ""
        while not self._closing:
            lease = await asyncio.to_thread(self._coordination.lease, self._settings.shard)
            if lease is None:
                await asyncio.sleep(BEAT_S)
                continue
            if lease.scheduler != followed:
                followed = lease.scheduler
                watch.forget(lease.shard)
                pulse = asyncio.ensure_future(self._death_of(followed))
            expired = watch.observe(lease, time.monotonic())
            if expired or pulse.done():
                if not self._closing:
                    pids = [process.pid for process in lease.owner.processes if process.name == "scheduler"]
                    await self._replace(lease.scheduler, pids)
                watch.forget(lease.shard)
                continue
            await asyncio.wait({pulse}, timeout=BEAT_S)

    async def _death_of(self, scheduler: str) -> None:
        """Returns when Ray says that the scheduler is dead, or does not know it."""
        while True:
            try:
                handle = await asyncio.to_thread(ray.get_actor, scheduler, NAMESPACE)
                await handle.pulse.remote()
            except (ActorDiedError, ValueError):
                return
            except RayError:
                await asyncio.sleep(RETRY_S)

    async def _replace(self, dead: str, pids: list[int]) -> None:
        """Starts a scheduler under a new name; it takes the shard at a higher epoch. The old one is ended if here."""
        for pid in pids[-1:]:
            with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
                if "ray::" in " ".join(psutil.Process(pid).cmdline()):
                    os.kill(pid, signal.SIGKILL)
        number = int(dead.rpartition("/")[2]) + 1
        while not self._closing:
            name = scheduler_name(self._settings.shard, number)
            try:
                actor = SchedulerActor.options(**options(name)).remote
                handle: Any = await asyncio.to_thread(actor, name, asdict(self._settings))
                await asyncio.wait_for(handle.open.remote(self._name, []), START_S)
                self._read_anew()
                return
            except TimeoutError:
                await asyncio.to_thread(ray.kill, handle)
                number += 1
            except (RayError, ValueError):
                number += 1
                await asyncio.sleep(RETRY_S)


SupervisorActor = ray.remote(Supervisor)
