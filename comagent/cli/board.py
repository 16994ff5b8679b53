"""What is known of the work at a moment, as far as a person wants to see it. It neither prints nor asks the time."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from comagent.cli.screen import count, duration, shortened, tally
from comagent.job_view import JobView, Progress, TaskEnd
from comagent.plan import OUTPUTS
from comagent.states import JOB_ENDS

FEW = 40
"""Up to so many lines each has its own; of more, only those that run or failed."""
TROUBLE = frozenset({"failed", "timed_out", "uncertain", "retrying", "over_budget"})
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
        self._views: dict[str, JobView] = {}

    @property
    def few(self) -> bool:
        return self.total <= FEW

    def summary(self, took_s: float) -> str:
        """`3 of 8 tasks, 2.1 s`."""
        return f"{self.done:,} of {count(self.total, self.noun)}, {duration(took_s)}"

    def told(self, news: Progress, now_s: float) -> list[Line]:
        """Takes in what happened to a job; the lines that ended, or failed and are tried again, since the last news."""
        self.status, self.done = news.status, news.done
        self.counts = {status: number for status, number in news.counts.items() if status != "unfinished"}
        changed = [self._ended(end) for end in news.ends]
        running = {path: attempt for path, attempt in news.running if path != OUTPUTS}
        for name, line in list(self.lines.items()):
            if line.status == "running" and name not in running:
                line.status, line.since_s = "pending", None
        for path, attempt in running.items():
            line = self.lines.setdefault(path, Line(path))
            if line.status != "running":
                line.status, line.attempt, line.since_s, line.note = "running", attempt, now_s, ""
        if not self.few:
            self.lines = {n: line for n, line in self.lines.items() if line.status in TROUBLE or line.status == "running"}
        return changed

    def seen(self, views: Iterable[JobView]) -> list[Line]:
        """Takes in how jobs stand; the lines of those that have ended since."""
        changed = []
        for view in views:
            before = self._views.get(view.job_id)
            self._views[view.job_id] = view
            line = self.lines.setdefault(view.job_id, Line(view.job_id))
            line.status, line.note = view.status, f"{view.done:,} of {count(view.total, 'task')}"
            if view.over and (before is None or not before.over):
                self.done += 1
                self.counts[view.status] = self.counts.get(view.status, 0) + 1
                changed.append(line)
        if not self.few:
            self.lines = {n: line for n, line in self.lines.items() if line.status not in JOB_ENDS or line.status in TROUBLE}
        return changed

    def _ended(self, end: TaskEnd) -> Line:
        line = self.lines.setdefault(end.path, Line(end.path))
        if end.path == OUTPUTS:
            line.name = "outputs"
        line.status, line.attempt, line.since_s = end.status, end.attempt, None
        line.took_s = (end.ended_ms - end.started_ms) / 1000
        line.note = "" if end.error is None or end.status == "cancelled" else error_text(end.error)
        if end.retry_in_s is not None:
            line.note += f" (tried again in {duration(end.retry_in_s)})"
        return line


def error_text(error: dict[str, object]) -> str:
    """An error as it is stored, in one line."""
    kind, message = str(error.get("type", "Error")), str(error.get("message", ""))
    # What the engine says itself reads better without the name of a class.
    own = kind in ("ConditionFalse", "JobFailed", "UpstreamFailed", "Cancelled")
    return shortened(message if own and message else f"{kind}: {message}" if message else kind, MESSAGE_CHARS)


def ending(board: Board) -> str:
    """`succeeded: 8 succeeded`, for the last line."""
    status = board.status.replace("_", " ")
    return f"{status}: {tally(board.counts)}" if board.counts else status
