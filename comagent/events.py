"""What the machine is told, what it answers, and what it wants done.

Everything in a `Step` belongs together: its changes are committed first, then its effects are carried out, in order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comagent.job import Ended, Happened, Job
from comagent.protocol import DispatchId, Report, Row, Running, Unit

# Events: what the machine is told -------------------------------------------------------------------------------------


class Submitted(NamedTuple):
    """A new job. `token` is whatever its owner needs to answer the client; it comes back with the commit."""

    job: Job
    deadline_ms: float | None


class Restored(NamedTuple):
    """A job that was taken over, already put where the store says it is."""

    job: Job
    deadline_ms: float | None
    retries: dict[int, float]
    """When the next attempt of a task is due, for those that were waiting for one."""


class Reported(NamedTuple):
    token: Any
    agent: str
    reports: Sequence[Report]
    tainted: bool
    """The agent has a thread that can't be stopped, and must be replaced."""


class Joined(NamedTuple):
    """A new agent, or one that was fenced, with the attempts it has in hand."""

    agent: str
    running: Sequence[Running]


class Lost(NamedTuple):
    """An agent is dead, or is treated as such. Without blame, it was ended on purpose."""

    agent: str
    blame: bool


class CancelRequested(NamedTuple):
    job_id: str


# Effects: what the machine wants done, once the step's changes are durable --------------------------------------------


class Send(NamedTuple):
    agent: str
    unit: Unit
    exports: bool
    """The agent's values will be passed on by object ref."""
    upstream: tuple[DispatchId, ...]
    """Dispatches whose values the unit takes by object ref: it starts by itself when they exist."""


class Release(NamedTuple):
    """Nobody will be sent the values of this dispatch any more."""

    dispatch: DispatchId


class Answer(NamedTuple):
    """The reply to one message of reports: for each, its job, and the outcomes that won over what it reported."""

    token: Any
    answers: list[tuple[str, DispatchId, dict[int, Row]]]


class CancelAt(NamedTuple):
    """The agent should stop what it runs of a job."""

    agent: str
    job_id: str


class Retire(NamedTuple):
    """The agent should be replaced now, and ended when it is idle or `kill` says so."""

    agent: str


class Kill(NamedTuple):
    agent: str
    reason: str


Event = Submitted | Restored | Reported | Joined | Lost | CancelRequested
Effect = Send | Answer | CancelAt | Release | Retire | Kill


class Change(NamedTuple):
    """What one job adds to the store."""

    job: Job
    rows: list[Ended]
    events: list[Happened]
    status: str | None


@dataclass(slots=True)
class Step:
    changes: list[Change] = field(default_factory=list)
    effects: list[Effect] = field(default_factory=list)
