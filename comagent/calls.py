"""Calls of tools that run beside each other: in a thread, or as a coroutine. (In a process: `comagent.isolation`.)

Every call belongs to the event loop in which it was made. It ends with the encoded value or the encoded error, never
with an exception: SystemExit in a task would end the event loop itself.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from types import CoroutineType, FrameType
from typing import Any, NamedTuple, Protocol
from weakref import WeakKeyDictionary

from comagent.failure import failure, stack, told

STOP_S = 1.0
"""How long a coroutine may take to end once it is cancelled."""
BLOCKED_S = 30.0
"""A coroutine fails that keeps the event loop for so long: the others wait for it."""
PROBE_S = 1.0


class Ended(NamedTuple):
    """How a call ended: with the JSON of its value, or with that of its error."""

    data: bytes | None
    error: bytes | None


class Call(Protocol):
    """A call that was begun."""

    ended: "asyncio.Future[Ended]"
    """Never fails."""

    @property
    def goes_on(self) -> bool:
        """Whether something of it runs and cannot be stopped: this process should be replaced then."""

    async def stop(self) -> None:
        """Ends the call, if it can be ended."""

    def where(self) -> str:
        """What it is doing, where that can be known."""


class ThreadCall:
    """A call in a thread of its own: one that is stuck then takes nothing from the others. It cannot be stopped."""

    def __init__(self, work: Callable[[], bytes]):
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, work), daemon=True, name="tool")
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        return not self.ended.done()

    async def stop(self) -> None:
        """Leaves it alone."""

    def where(self) -> str:
        return stack(frames_of(self._thread))

    def _run(self, loop: asyncio.AbstractEventLoop, work: Callable[[], bytes]) -> None:
        process = os.getpid()
        try:
            ended = Ended(work(), None)
        except BaseException as error:  # noqa: BLE001  # a tool may raise anything, SystemExit included
            ended = Ended(None, failure(error))
        if os.getpid() != process:
            os._exit(0)  # the tool has forked, and this is the copy: nobody waits for it
        with contextlib.suppress(RuntimeError):  # the loop may be closed by the time a stuck tool returns
            loop.call_soon_threadsafe(_settle, self.ended, ended)


class CoroutineCall:
    """A call that awaits, in the event loop of a `CoroutineThread`."""

    def __init__(self, thread: "CoroutineThread", work: Callable[[], Awaitable[bytes]]):
        self._thread = thread
        self._home = asyncio.get_running_loop()
        self._task: asyncio.Task[Ended] | None = None
        self.ended: asyncio.Future[Ended] = self._home.create_future()
        self._left = False
        thread.loop.call_soon_threadsafe(self._begin, work)

    @property
    def goes_on(self) -> bool:
        return not self._left

    async def stop(self) -> None:
        self._thread.loop.call_soon_threadsafe(self._cancel)
        await asyncio.wait({self.ended}, timeout=STOP_S)

    def where(self) -> str:
        task = self._task
        if task is None or task is asyncio.current_task(self._thread.loop):
            return self._thread.where()
        return stack(_frames_of_coroutine(task.get_coro()))

    def block(self) -> None:
        """Gives it up, because it keeps the loop from going on."""
        message = (
            f"the coroutine has kept the event loop of its agent for {BLOCKED_S:g} s, and everything else there waits. "
            "Await what takes long, or declare the tool with a plain `def`."
        )
        _settle(self.ended, Ended(None, told("BlockedEventLoop", message, trace=self._thread.where())))

    def _begin(self, work: Callable[[], Awaitable[bytes]]) -> None:
        self._task = self._thread.loop.create_task(self._run(work))
        self._thread.began(self._task, self)
        self._task.add_done_callback(self._done)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    async def _run(self, work: Callable[[], Awaitable[bytes]]) -> Ended:
        try:
            return Ended(await work(), None)
        except BaseException as error:  # noqa: BLE001  # a tool may raise anything, SystemExit included
            return Ended(None, failure(error))

    def _done(self, task: "asyncio.Task[Ended]") -> None:
        self._left = True
        ended = Ended(None, told("CancelledError", "it was cancelled")) if task.cancelled() else task.result()
        with contextlib.suppress(RuntimeError):  # the loop may be closed by now
            self._home.call_soon_threadsafe(_settle, self.ended, ended)


class CoroutineThread:
    """An event loop for coroutines of tools: one that blocks it leaves the event loop of the process alone.

    `watch` finds out who blocks it; call it about every `PROBE_S` while calls are under way.
    """

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._calls: WeakKeyDictionary[asyncio.Task[Any], CoroutineCall] = WeakKeyDictionary()
        self._asked: float | None = None
        self.loop.set_task_factory(self._make_task)  # type: ignore[arg-type]  # its protocol takes futures too
        self._thread = threading.Thread(target=self._run, daemon=True, name="coroutines")
        self._thread.start()

    def began(self, task: "asyncio.Task[Any]", call: CoroutineCall) -> None:
        self._calls[task] = call

    def watch(self) -> None:
        """Gives up the call that has blocked the loop for too long."""
        now = time.monotonic()
        if self._asked is None:
            self._asked = now
            self.loop.call_soon_threadsafe(self._answer)
        elif now - self._asked > BLOCKED_S:
            task = asyncio.current_task(self.loop)
            call = None if task is None else self._calls.get(task)
            if call is not None:
                call.block()

    def where(self) -> str:
        return stack(frames_of(self._thread))

    def _answer(self) -> None:
        self._asked = None

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while True:
            # Tasks that a tool leaves behind may raise SystemExit, which ends the loop, or stop it.
            with contextlib.suppress(BaseException):
                self.loop.run_forever()

    def _make_task(
        self, loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any
    ) -> "asyncio.Task[Any]":
        """A task that belongs to the call which made it."""
        task = asyncio.Task(work, loop=loop, **options)
        maker = asyncio.current_task(loop)
        call = None if maker is None else self._calls.get(maker)
        if call is not None:
            self._calls[task] = call
        return task


def _settle(future: "asyncio.Future[Ended]", ended: Ended) -> None:
    if not future.done():
        future.set_result(ended)


def frames_of(thread: threading.Thread) -> Iterator[FrameType]:
    frame = sys._current_frames().get(thread.ident or 0)
    frames = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return reversed(frames)


def _frames_of_coroutine(work: Any) -> Iterator[FrameType]:
    while isinstance(work, CoroutineType) and work.cr_frame is not None:
        yield work.cr_frame
        work = work.cr_await
