"""A job on a display, as far as the store tells of it."""

import time

from comagent.cli.board import Board
from comagent.cli.display import Display
from comagent.cli.following import News
from comagent.job_view import ended_view, progress_of
from comagent.states import TASK_BY_LABEL
from comagent.store import JobRecord, ProgressRow
from comagent.submission import plan_from


class Watched:
    """What has been seen of a job, shown on `display`."""

    def __init__(self, record: JobRecord, display: Display):
        self._plan = plan_from(record.process_doc, record.tools_doc, process_hash=record.process_hash)
        self._view = ended_view(record, [])
        self._display = display
        self._board = Board(f"{record.process_name}, job {record.job_id}", self._plan.ids[:-1], noun="task")
        display.starting("looking into the store")
        display.began(self._board, ago_s=time.time() - record.submitted_ms / 1000)

    def see(self, news: News) -> None:
        """Takes in what was committed since the last time."""
        ended = [row.outcome for row in news.rows if isinstance(row, ProgressRow)]
        indices = [self._plan.index[outcome.task] for outcome in ended]
        states = bytes(TASK_BY_LABEL[outcome.status] for outcome in ended)
        self._view.ended(indices, states, seq=news.rows[-1].seq if news.rows else 0)
        self._view.status = news.record.status
        self._display.progress(progress_of(self._view, news.rows))
        self._mark_ready()
        self._display.tick()

    def _mark_ready(self) -> None:
        """What runs is not in the store, but what could is."""
        lines, plan = self._board.lines, self._plan
        for path, line in lines.items():
            number = plan.index.get(path)
            if line.status == "pending" and number is not None and number not in plan.results:
                needs = [lines.get(plan.ids[need]) for need in plan.needs_of(number)]
                if all(need is None or (need.took_s is not None and need.status != "retrying") for need in needs):
                    line.status = "ready"
