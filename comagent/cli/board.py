"""What is known of the work at a moment, as far as a person wants to see it. It neither prints nor asks the time."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from comagent.cli.screen import count, duration, shortened, tally
from comagent.job_view import JobView, Progress, TaskEnd
from comagent.plan import OUTPUTS
from comagent.states import JOB_ENDS

FEW = 40
"""Up to so many lines each has its own; of more, only those that run or failed."""
TROUBLE = frozenset({"failed", "timed_out", "uncertain", "retrying", "over_budget"})
OWN = frozenset({"Cancelled", "ConditionFalse", "JobFailed", "UpstreamNotSucceeded"})
"""Types of errors that are the engine's own words about a task that did not run."""
MESSAGE_CHARS = 300


@dataclass(slots=True)
class Line:
    """One task of a job, or one job of several."""

    name: str
    status: str = "pending"
    attempt: int = 0
    since_s: float | None = None
    """When it was first seen running."""
    took_s: float | None = None
    note: str = ""

    def text(self) -> str:
        """`load: failed in 0.10 s, attempt 2: ValueError: no such table`."""
        if self.note.startswith(f"{self.status}, "):
            return f"{self.name}: {self.note}"
        attempt = f", attempt {self.attempt}" if self.attempt > 1 or self.status == "retrying" else ""
        took = "" if self.took_s is None or self.status in ("skipped", "cancelled") else f" in {duration(self.took_s)}"
        status = "failed" if self.status == "retrying" else self.status.replace("_", " ")
        return f"{self.name}: {status}{took}{attempt}{': ' if self.note else ''}{self.note}"


class Board:
    """The tasks of one job, or several jobs."""

    def __init__(self, title: str, names: Sequence[str], *, noun: str):
        self.title = title
        self.noun = noun
        self.total = len(names)
        self.done = 0
        self.status = "pending"
        self.counts: dict[str, int] = {}
        self.lines = {name: Line(name) for name in names} if len(names) <= FEW else {}
        """In order; of many, those that run or failed."""
        self._over: set[str] = set()

    @property
    def few(self) -> bool:
        return self.total <= FEW

    @property
    def over(self) -> bool:
        return self.status in JOB_ENDS or self.status == "ended"

    def summary(self, took_s: float) -> str:
        """`3 of 8 tasks, 2.1 s`."""
        return f"{self.done:,} of {count(self.total, self.noun)}, {duration(took_s)}"

    def ending(self, took_s: float) -> str:
        """`succeeded in 2.1 s: 7 succeeded, 1 skipped`."""
        counts = f": {tally(self.counts)}" if self.counts else ""
        return f"{self.status.replace('_', ' ')} in {duration(took_s)}{counts}"

    def told(self, news: Progress, now_s: float) -> list[Line]:
        """Takes in what happened to a job; the lines that ended, or failed and are tried again, since the last news."""
        self.status, self.done = news.status, news.done
        self.counts = {status: number for status, number in news.counts.items() if status != "unfinished"}
        changed = [self._ended(end) for end in news.ends if end.path != OUTPUTS or end.status in TROUBLE]
        running = {path: attempt for path, attempt in news.running if path != OUTPUTS}
        for name, line in list(self.lines.items()):
            if line.status == "running" and name not in running:
                line.status, line.since_s = "pending", None
        for path, attempt in running.items():
            line = self.lines.setdefault(path, Line(path))
            if line.status != "running":
                line.status, line.attempt, line.since_s, line.note = "running", attempt, now_s, ""
        if not self.few:
            self._keep(lambda line: line.status in TROUBLE or line.status == "running")
        return changed

    def seen(self, views: Iterable[JobView]) -> list[Line]:
        """Takes in how jobs stand; the lines of those that have ended since."""
        changed = []
        for view in views:
            line = self.lines.setdefault(view.job_id, Line(view.job_id))
            line.status, line.note = view.status, f"{view.done:,} of {count(view.total, 'task')}"
            if view.over and view.job_id not in self._over:
                self._over.add(view.job_id)
                self.done += 1
                self.counts[view.status] = self.counts.get(view.status, 0) + 1
                changed.append(replace(line))
        self.status = "ended" if self.done == self.total else "running"
        if not self.few:
            self._keep(lambda line: line.status in TROUBLE or line.status not in JOB_ENDS)
        return changed

    def _keep(self, wanted: Callable[[Line], bool]) -> None:
        self.lines = {name: line for name, line in self.lines.items() if wanted(line)}

    def _ended(self, end: TaskEnd) -> Line:
        line = self.lines.setdefault(end.path, Line(end.path))
        if end.path == OUTPUTS:
            line.name = "outputs"
        line.status, line.attempt, line.since_s = end.status, end.attempt, None
        line.took_s = (end.ended_ms - end.started_ms) / 1000
        line.note = "" if end.error is None or end.status == "cancelled" else error_text(end.error)
        if end.retry_in_s is not None:
            line.note += f" (tried again in {duration(end.retry_in_s)})"
        return replace(line)


def error_text(error: dict[str, object]) -> str:
    """An error as it is stored, in one line."""
    kind, message = str(error.get("type", "Error")), str(error.get("message", ""))
    # What the engine says itself reads better without the name of a class.
    return shortened(message if kind in OWN and message else f"{kind}: {message}" if message else kind, MESSAGE_CHARS)
