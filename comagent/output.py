"""What tools print in an agent: kept, but never more than a disk can take."""

import sys
from typing import TextIO

LIMIT_CHARS = 16 * 1024 * 1024
"""Characters that one process may print; a tool that floods its output is silenced, not stopped."""


class _Capped:
    """A text stream that swallows everything after a limit. Everything else is the stream's own."""

    def __init__(self, stream: TextIO, left: int):
        self._stream = stream
        self._left = left

    def write(self, text: str) -> int:
        if self._left > 0:
            self._stream.write(text[: self._left])
            self._left -= len(text)
            if self._left <= 0:
                self._stream.write(f"\n(silenced after {LIMIT_CHARS} characters)\n")
        return len(text)

    def __getattr__(self, name: str) -> object:
        return getattr(self._stream, name)


def cap_output() -> None:
    """Caps what this process prints from now on. Repeating it is fine."""
    if not isinstance(sys.stdout, _Capped):
        sys.stdout = _Capped(sys.stdout, LIMIT_CHARS)  # type: ignore[assignment]
    if not isinstance(sys.stderr, _Capped):
        sys.stderr = _Capped(sys.stderr, LIMIT_CHARS)  # type: ignore[assignment]
