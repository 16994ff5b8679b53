"""The scheduler's side of its agents: starts them, feeds them, notices when they are gone, replaces them."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from typing import Any

import psutil
import ray
from ray.exceptions import ActorDiedError, RayError, RayTaskError

from comagent.actors.names import NAMESPACE, agent_name, agent_prefix, options
from comagent.actors.settings import Settings
from comagent.actors.subtask import SubTaskAgentActor
from comagent.protocol import DispatchId, Epoch, Running, Unit

START_S = 60.0
TAKE_S = 5.0
"""A running agent that has not answered its new scheduler for so long is ended."""
BEAT_S = 1.0
SILENCE_S = 30.0
"""An agent that has not answered for so long is ended, even if its process seems to run."""
RESTART_S = 0.2


class Link:
    """One agent, and what is on its way to it."""

    def __init__(self, name: str, handle: Any):
        self.name = name
        self.handle = handle
        self.pid: int | None = None
        self.queue: list[Unit] = []
        self.sending = False
        self.over = False
        """Nothing more is expected of it; its death is no news."""


class AgentPool:
    """The agents of one shard. `on_joined(name, running)` and `on_lost(name, blame)` are called in the event loop."""

    def __init__(
        self,
        settings: Settings,
        scheduler: str,
        epoch: Epoch,
        *,
        on_joined: Callable[[str, list[Running]], None],
        on_lost: Callable[[str, bool], None],
        on_unstarted: Callable[[str, Unit], None],
    ):
        self._settings = settings
        self._scheduler = scheduler
        self._epoch = epoch
        self._on_joined = on_joined
        self._on_lost = on_lost
        self._on_unstarted = on_unstarted
        self._values: dict[DispatchId, Any] = {}
        self._links: dict[str, Link] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[Any]] = set()
        self._over = False

    def expect(self, names: list[str]) -> None:
        """Takes agents that are being started and have nothing in hand; nobody has to wait for them."""
        for name in names:
            self._background(self._take_new(name))

    async def open(self) -> list[tuple[str, list[Running]]]:
        """Takes over the agents that there are, starts those that are missing; returns what each has in hand."""
        prefix = agent_prefix(self._settings.shard)
        listed = await asyncio.to_thread(ray.util.list_named_actors, True)
        names = sorted(n["name"] for n in listed if n["namespace"] == NAMESPACE and n["name"].startswith(prefix))
        taken = await asyncio.gather(*[self._take(name, TAKE_S) for name in names])
        joined = [answer for answer in taken if answer is not None]
        for _ in range(self._settings.agents - len(joined)):
            self._background(self._start())
        return joined

    def send(self, agent: str, unit: Unit, *, exports: bool, upstream: tuple[DispatchId, ...]) -> None:
        """Queues a unit; everything that is queued for an agent leaves in one message when the last one was taken.

        A unit that gives values by object ref, or takes them, goes alone and at once.
        """
        link = self._links.get(agent)
        if link is None:
            return
        if exports or upstream:
            refs = [self._values.get(dispatch) for dispatch in upstream]
            if any(ref is None for ref in refs):
                # The agent that should have made a value was gone before it was sent to.
                self._on_unstarted(agent, unit)
                return
            receipt, values = link.handle.run.remote(self._epoch, unit, *refs)
            if exports:
                self._values[unit.dispatch] = values
            self._background(self._receive(link, unit, receipt))
            return
        link.queue.append(unit)
        if not link.sending:
            link.sending = True
            self._background(self._send(link))

    def release(self, dispatch: DispatchId) -> None:
        """Lets go of a unit's values: all units that take them were sent, and Ray holds them for those."""
        self._values.pop(dispatch, None)

    def cancel(self, agent: str, job_id: str) -> None:
        link = self._links.get(agent)
        if link is not None:
            link.handle.cancel.remote(self._epoch, job_id)

    def retire(self, agent: str) -> None:
        """Starts another agent in place of one that will end soon."""
        if agent in self._links:
            self._background(self._start())

    def kill(self, agent: str) -> None:
        """Ends an agent at once; it is replaced, unless that has happened."""
        link = self._links.pop(agent, None)
        if link is None:
            return
        link.over = True
        self._background(self._end(link))
        if len([other for other in self._links.values() if not other.over]) < self._settings.agents:
            self._background(self._start())

    def let_go(self) -> None:
        """Another scheduler has them."""
        self._over = True
        for link in self._links.values():
            link.over = True

    async def _take(self, name: str, within_s: float) -> tuple[str, list[Running]] | None:
        """Makes an agent that exists ours; None if it is dead. One that gives no sign of life in time is ended."""
        try:
            handle = await asyncio.to_thread(ray.get_actor, name, NAMESPACE)
            link = Link(name, handle)
            link.pid = await asyncio.wait_for(handle.beat.remote(), within_s)
            await asyncio.wait_for(handle.open.remote(), START_S)
            running = await asyncio.wait_for(handle.fence.remote(self._epoch, self._scheduler), START_S)
        except TimeoutError:
            self._background(self._end(link))
            return None
        except (RayError, ValueError):
            return None
        self._links[name] = link
        self._background(self._watch(link))
        self._background(self._listen(link))
        return name, running

    async def _take_new(self, name: str) -> None:
        taken = await self._take(name, START_S)
        if taken is not None:
            self._on_joined(*taken)
        else:
            await self._start()

    async def _start(self) -> None:
        """Starts an agent, and another one if it dies before it is ready."""
        documents, owner = self._settings.documents, self._settings.owner
        while not self._over:
            self._number += 1
            name = agent_name(self._settings.shard, self._epoch[1] * 1_000_000 + self._number)
            with contextlib.suppress(RayError, ValueError):
                await asyncio.to_thread(SubTaskAgentActor.options(**options(name)).remote, name, documents, owner)
                taken = await self._take(name, START_S)
                if taken is not None:
                    self._on_joined(*taken)
                    return
            await asyncio.sleep(RESTART_S)

    async def _send(self, link: Link) -> None:
        try:
            while link.queue and not link.over:
                units, link.queue = link.queue, []
                await link.handle.accept.remote(self._epoch, units)
        except RayTaskError:
            # It refuses us, because another scheduler has fenced it: our own lease will say so.
            link.queue.clear()
        except RayError:
            # Whether it took them is unknown. If it is dead, `_watch` says so; if not, they are sent again.
            link.queue = units + link.queue
            await asyncio.sleep(RESTART_S)
            if link.name in self._links and not link.over:
                self._background(self._send(link))
                return
        link.sending = False

    async def _receive(self, link: Link, unit: Unit, receipt: Any) -> None:
        """Waits for a receipt. An error that came with an argument says that the unit never started."""
        try:
            await receipt
        except RayTaskError:
            if not self._over:
                self._on_unstarted(link.name, unit)
        except RayError:
            # The agent itself is gone or out of reach: `_watch` knows more.
            return

    async def _watch(self, link: Link) -> None:
        """Waits for the news of an agent's death."""
        while not link.over:
            try:
                await link.handle.pulse.remote()
            except ActorDiedError:
                break
            except RayError:
                await asyncio.sleep(RESTART_S)
        if link.over:
            return
        link.over = True
        self._links.pop(link.name, None)
        self._on_lost(link.name, True)
        await self._start()

    async def _listen(self, link: Link) -> None:
        """Ends an agent that is there but does not answer: a paused one at once, a busy one after a while."""
        silent_s = 0.0
        while not link.over:
            await asyncio.sleep(BEAT_S)
            try:
                await asyncio.wait_for(link.handle.beat.remote(), 2 * BEAT_S)
                silent_s = 0.0
            except (RayError, TimeoutError):
                silent_s += 3 * BEAT_S
            if silent_s and (silent_s > SILENCE_S or self._paused(link)):
                self._signal(link)

    def _paused(self, link: Link) -> bool:
        try:
            return link.pid is not None and psutil.Process(link.pid).status() == psutil.STATUS_STOPPED
        except psutil.Error:
            return False

    async def _end(self, link: Link) -> None:
        self._signal(link)
        with contextlib.suppress(RayError):
            await asyncio.to_thread(ray.kill, link.handle)

    def _signal(self, link: Link) -> None:
        if link.pid is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(link.pid, signal.SIGKILL)

    def _background(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
