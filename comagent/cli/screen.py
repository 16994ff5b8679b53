"""What a person reads: text without surprises, and numbers in the form in which people say them."""

import contextlib
import re
import sys
from datetime import datetime
from io import StringIO

from rich.console import Console
from rich.table import Table

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")

WIDE = 10_000
"""Characters of a line where nothing has to be cut."""

STYLES = {
    "succeeded": "green",
    "failed": "red",
    "timed_out": "red",
    "over_budget": "red",
    "uncertain": "red",
    "running": "yellow",
    "retrying": "magenta",
    "cancelling": "magenta",
    "cancelled": "magenta",
    "pending": "dim",
    "skipped": "dim",
}
"""By status of a task or a job."""


def console(*, stderr: bool = False) -> Console:
    """A console that prints texts as they are: what looks like markup in a task's name is none."""
    return Console(stderr=stderr, markup=False, emoji=False, highlight=False)


def width() -> int:
    """Characters of a line on stdout."""
    out = console()
    return out.width if out.is_terminal else WIDE


def print_table(table: Table, *, least: int = 60) -> None:
    """A table on stdout: cut to the width of a terminal, in full where there is none or a narrower one than `least`."""
    out = console()
    if out.is_terminal and out.width >= least:
        out.print(table)
        return
    wide = Console(file=StringIO(), width=WIDE, markup=False, emoji=False, highlight=False)
    with wide.capture() as captured:
        wide.print(table)
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def say(text: str) -> None:
    """A line on stderr, whether anybody can still read it or not."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.write(clean(text) + "\n")
        sys.stderr.flush()


def complain(error: object) -> None:
    """An error on stderr."""
    say(f"comagent: {error}" if "\n" not in str(error) else str(error))


def clean(text: str) -> str:
    """The text without what could move a terminal's cursor, colour it or turn the direction of writing."""
    return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text.replace("\r\n", "\n").replace("\r", "\n"))


def shortened(text: str, length: int) -> str:
    """One line of at most `length` characters."""
    line = " ".join(clean(text).split())
    return line if len(line) <= length else f"{line[: length - 1]}…"


def duration(seconds: float) -> str:
    """Three figures at most: `0.04 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 0.995:
        return f"{max(0.0, seconds):.2f} s"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def clock(at_ms: float) -> str:
    """Date and time where the reader is."""
    return datetime.fromtimestamp(at_ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def age(seconds: float) -> str:
    """How long ago, in one figure: `45 s`, `3 min`, `5 h`, `12 d`."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def count(number: int, noun: str) -> str:
    """`1 task`, `12 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def tally(counts: dict[str, int]) -> str:
    """`7 succeeded, 1 timed out`."""
    return ", ".join(f"{number:,} {status.replace('_', ' ')}" for status, number in counts.items())
