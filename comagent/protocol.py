"""What scheduler and agents say to each other. Tuples and bytes only: they travel by the ten thousand.

A *dispatch* is one sending of a unit to one agent: `(global_epoch, regional_epoch, n)`. A *wire* is a value on its way:
canonical JSON in bytes up to `INLINE_BYTES`, else a `Large`.
"""

from typing import Any, NamedTuple

INLINE_BYTES = 64 * 1024
"""Values up to this size travel inside messages and rows; larger ones are documents."""

Epoch = tuple[int, int]
"""(global, regional), ordered lexicographically."""

DispatchId = tuple[int, int, int]

Lane = str
"""Where a unit runs inside an agent: `batch` (cheap tasks one after the other), or the kind of its only task's tool."""

BATCH = "batch"


class Large(NamedTuple):
    """A value that is a document; `ref` is a live object ref to it, as long as the agent that made it lives."""

    hash: str
    size: int
    type: str
    ref: Any = None


Wire = bytes | Large


class Part(NamedTuple):
    """One task of a unit."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int
    path: str
    step: bytes


class Unit(NamedTuple):
    """Tasks of one job that run on one agent one after the other. Self-contained: whoever has it can run it."""

    dispatch: DispatchId
    job_id: str
    lane: Lane
    parts: list[Part]
    seeds: int
    """The first `seeds` parts depend on nothing in this unit. The others depend on parts before them: if any part does
    not succeed, those that have not run by then are handed back."""
    tools: dict[int, tuple[Any, ...]]
    inputs: Wire
    literals: dict[str, Wire]
    """Values that the parts read and that were committed before."""
    ends: dict[str, tuple[str, bytes | None]]
    """Status and error of tasks whose status or error the parts read."""
    borrows: tuple[tuple[int, tuple[str, ...]], ...] = ()
    """(position of a part, paths that it needs) where something comes by object ref: a part runs only if all came."""


class Row(NamedTuple):
    """What became of one attempt. `payload`: the value's wire if it succeeded, else the error as JSON, or None."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    attempt: int
    status: int
    started_ms: float
    ended_ms: float
    payload: Wire | None


class Report(NamedTuple):
    """What became of parts of one dispatch. A dispatch may be reported in several pieces; `not_run` never started."""

    dispatch: DispatchId
    job_id: str
    rows: list[Row]
    not_run: list[int]
    reason: str | None
    """Why parts were handed back: `slow`, `upstream`, `cancelled`, `fenced`; anything else is the agent's own error."""


class Answered(NamedTuple):
    """The reply to one report, after its commit. `won` has the outcomes that were committed before and differ."""

    verdict: str
    won: dict[int, Row]


class Running(NamedTuple):
    """An attempt that an agent has in hand when it is fenced."""

    dispatch: DispatchId
    job_id: str
    parts: list[tuple[int, int]]
    """(task index, attempt)"""
    lane: Lane


OK = "ok"
STALE = "stale"
AGAIN = "again"


def dispatch_label(dispatch: DispatchId) -> str:
    return f"{dispatch[0]}.{dispatch[1]}.{dispatch[2]}"
