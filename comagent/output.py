"""What tools print in an agent: kept, but never more than a disk can take, and never a tool's error."""

import contextlib
import sys
from typing import TextIO

LIMIT_CHARS = 16 * 1024 * 1024
"""Characters that one process may print; a tool that floods its output is silenced, not stopped."""


class Capped:
    """A text stream that swallows everything after a limit, and that no tool can close. The rest is the stream's."""

    def __init__(self, stream: TextIO, limit: int):
        self._stream = stream
        self._limit = limit
        self._left = limit

    def write(self, text: str) -> int:
        if self._left > 0:
            kept = text[: self._left]
            self._left -= len(kept)
            if self._left <= 0:
                kept += f"\n(silenced after {self._limit} characters)\n"
            # A full disk, or text that the stream cannot encode, is no reason to fail what printed.
            with contextlib.suppress(OSError, ValueError):
                self._stream.write(kept)
        return len(text)

    def close(self) -> None:
        """Leaves it open: it belongs to all tools of the process."""

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def cap_output() -> None:
    """Caps what this process prints from now on. Repeating it is fine."""
    if not isinstance(sys.stdout, Capped):
        sys.stdout = Capped(sys.stdout, LIMIT_CHARS)
    if not isinstance(sys.stderr, Capped):
        sys.stderr = Capped(sys.stderr, LIMIT_CHARS)
