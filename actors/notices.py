"""What the scheduler tells the supervisor after each commit: little, because whoever wants more reads the store."""

import asyncio
from array import array
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from comagent.actors.names import NAMESPACE
from comagent.events import Change
from comagent.protocol import BATCH, Unit, Wire
from comagent.states import JOB_ENDS

RETRY_S = 0.5
SILENCE_S = 10.0
"""A supervisor that takes longer to take a notice is replaced."""


class Notice(NamedTuple):
    """What one commit added to one job."""

    job_id: str
    batch: int
    seq: int
    total: int
    """Tasks of the job, the implicit last one not counted."""
    admitted: bool
    status: str | None
    tasks: bytes
    """Indices of the tasks that ended, as 32-bit numbers."""
    states: bytes
    """Their states, one byte each."""
    result: Wire | None
    error: bytes | None


class Started(NamedTuple):
    """Attempts that were sent to an agent: seen running, promised nothing."""

    job_id: str
    tasks: list[tuple[int, str, int]]
    """(index, path, attempt)"""


class Notices:
    """Sends notices in order, one message at a time; while the supervisor is away they wait."""

    def __init__(self, supervisor: str, shard: str):
        self._name = supervisor
        self._shard = shard
        self._handle: Any = None
        self._queue: list[Notice | Started] = []
        self._sending: asyncio.Task[None] | None = None

    def committed(self, change: Change, seq: int, batch: int, *, admitted: bool) -> None:
        job = change.job
        last = change.rows[-1].row if change.rows else None
        ended = change.status in JOB_ENDS
        self._queue.append(
            Notice(
                job.job_id,
                batch,
                seq,
                len(job.plan),
                admitted,
                change.status,
                array("I", [row[0] for _, row in change.rows]).tobytes(),
                bytes([row[2] for _, row in change.rows]),
                last[5] if ended and change.status == "succeeded" and last is not None else None,
                job.error if ended else None,
            )
        )

    def sent(self, unit: Unit) -> None:
        if unit.lane != BATCH:
            self._queue.append(Started(unit.job_id, [(part[0], part[2], part[1]) for part in unit.parts]))

    def flush(self) -> None:
        if self._queue and self._sending is None:
            self._sending = asyncio.ensure_future(self._send())

    async def _send(self) -> None:
        try:
            while self._queue:
                notices, self._queue = self._queue, []
                while True:
                    try:
                        if self._handle is None:
                            self._handle = await asyncio.to_thread(ray.get_actor, self._name, NAMESPACE)
                        await asyncio.wait_for(self._handle.notice.remote(notices), SILENCE_S)
                        break
                    except TimeoutError:
                        # It stands still, which Ray does not notice: ended, it is started anew.
                        await asyncio.to_thread(ray.kill, self._handle, no_restart=False)
                        self._handle = None
                    except (RayError, ValueError):
                        self._handle = None
                        await asyncio.sleep(RETRY_S)
        finally:
            self._sending = None
