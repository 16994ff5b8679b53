"""Ids that sort by the time they were made (UUID version 7, RFC 9562)."""

import secrets
import threading
import time
import uuid
from collections.abc import Callable

_TICKS_PER_MS = 4096
_NS_PER_MS = 1_000_000


class Uuid7:
    """Makes ids, each greater than the one before, even when the clock stands still or goes back.

    48 bits of milliseconds, 12 bits of their fraction (method 3 of section 6.2), 62 random bits. Safe between threads;
    a forked process goes on with other random bits.
    """

    def __init__(self, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._clock_ns = clock_ns
        self._last = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        now = self._clock_ns() * _TICKS_PER_MS // _NS_PER_MS
        with self._lock:
            self._last = tick = max(now, self._last + 1)
        milliseconds, fraction = divmod(tick, _TICKS_PER_MS)
        head = milliseconds << 80 | 0x7 << 76 | fraction << 64
        return str(uuid.UUID(int=head | 0b10 << 62 | secrets.randbits(62)))


uuid7 = Uuid7()
"""The one generator of this process: only a shared one can keep its ids in order."""
