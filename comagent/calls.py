"""Calls of tools that run beside each other: in a thread, or as a coroutine. (In a process: `comagent.isolation`.)

Every call belongs to the event loop in which it was made. It ends with the encoded value or the encoded error, never
with an exception: SystemExit in a task or a future would end the event loop itself.
"""

import asyncio
import contextlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from types import FrameType
from typing import NamedTuple, Protocol

from comagent.failure import failure

STOP_S = 1.0
"""How long a coroutine may take to end once it is cancelled."""
BLOCKED_S = 30.0
"""A coroutine that keeps its event loop from going on for so long fails."""


class Ended(NamedTuple):
    """How a call ended: with the value's JSON or with the error's."""

    data: bytes | None
    error: bytes | None


class Call(Protocol):
    """A call that was begun."""

    ended: "asyncio.Future[Ended]"
    """Never fails, and may be waited for any number of times."""
    leaves_process_usable: bool
    """False once something goes on that cannot be stopped."""

    async def stop(self) -> None:
        """Ends the call, if it can be ended."""

    def where(self) -> str | None:
        """What it is doing, as a traceback, where that can be known."""


def attempt(work: Callable[[], bytes]) -> Ended:
    """Runs `work` here, whatever it raises."""
    process = os.getpid()
    try:
        ended = Ended(work(), None)
    except BaseException as error:  # a tool may raise anything, SystemExit included
        ended = Ended(None, failure(error))
    if os.getpid() != process:
        # The tool has forked and returned twice: nobody but us waits for the copy.
        os._exit(0)
    return ended


class ThreadCall:
    """A call in a thread of its own: one that is stuck then takes nothing from the others. It cannot be stopped."""

    def __init__(self, work: Callable[[], bytes]):
        loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, work), daemon=True, name="tool")
        self._thread.start()

    @property
    def leaves_process_usable(self) -> bool:
        return self.ended.done()

    async def stop(self) -> None:
        """A thread cannot be stopped."""

    def where(self) -> str | None:
        return _stack(self._thread, "work()")

    def _run(self, loop: asyncio.AbstractEventLoop, work: Callable[[], bytes]) -> None:
        ended = attempt(work)
        with contextlib.suppress(RuntimeError):  # the loop may be closed by the time a stuck tool returns
            loop.call_soon_threadsafe(_settle, self.ended, ended)
