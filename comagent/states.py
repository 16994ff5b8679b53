"""The states of a job and of its tasks: their public names, and the small integers the machine keeps them as."""

from enum import IntEnum


class Task(IntEnum):
    """State of a task. Everything from `SUCCEEDED` on is terminal: an outcome, committed once and never changed."""

    PENDING = 0
    """Some of what it needs has not ended."""
    READY = 1
    """May run; queued."""
    RUNNING = 2
    """Part of a dispatch that is open: sent to an agent, or on its way."""
    RETRYING = 3
    """An attempt failed; the next one waits for its back-off."""
    WAITING = 4
    """Held by something outside the job: an approval, a signal, a timer, a permit."""
    SUCCEEDED = 5
    FAILED = 6
    SKIPPED = 7
    CANCELLED = 8
    TIMED_OUT = 9
    UNCERTAIN = 10

    @property
    def label(self) -> str:
        return TASK_LABELS[self]


TASK_LABELS: tuple[str, ...] = tuple(state.name.lower() for state in Task)
TASK_BY_LABEL: dict[str, Task] = {label: Task(code) for code, label in enumerate(TASK_LABELS)}

TERMINAL = Task.SUCCEEDED
"""A state `s` is terminal exactly when `s >= TERMINAL`."""

JOB_STATUSES = (
    "pending",
    "running",
    "waiting",
    "paused",
    "cancelling",
    "succeeded",
    "failed",
    "cancelled",
    "timed_out",
    "over_budget",
)
JOB_ENDS = frozenset({"succeeded", "failed", "cancelled", "timed_out", "over_budget"})
