"""Progress on stderr: a table that lives where there is a terminal, lines where there is none."""

import contextlib
import sys
import time
from collections.abc import Sequence

from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from comagent.cli.board import TROUBLE, Board, Line
from comagent.cli.screen import STYLES, clean, console, count, duration, say, tally
from comagent.job_view import JobView, Progress

LONG_S = 2.0
"""A task that runs for so long is worth a line of its own."""
COUNTS_S = 1.0
"""Least time between two lines of counts."""
NAMED = 8
"""Tasks that ended together and are named in one line; of more, their number is told."""


def display_for(*, quiet: bool) -> "Display":
    if quiet:
        return Display()
    return Drawing() if sys.stderr.isatty() and not console(stderr=True).is_dumb_terminal else Lines()


class Display:
    """What is told about a run. This one says only what has to be said; the others say more."""

    def starting(self, what: str) -> None:
        """Something begins that takes seconds."""

    def began(self, board: Board, *, ago_s: float = 0.0) -> None:
        """The jobs are there, and have been for so long. Their progress goes to `board`."""

    def progress(self, news: Progress) -> None:
        """Something happened to the job, if it is only one."""

    def views(self, views: Sequence[JobView]) -> None:
        """How some of several jobs stand."""

    def note(self, text: str) -> None:
        """Something to be read whatever else is shown."""
        say(text)

    def tick(self) -> None:
        """Time has passed: called a few times a second."""

    def close(self) -> None:
        """Nothing more comes, notes excepted. Closing twice is fine."""


class Lines(Display):
    """A line for each end, each attempt that failed and each start of a long task."""

    def __init__(self) -> None:
        self._board: Board | None = None
        self._began_s = 0.0
        self._told: set[tuple[str, int]] = set()
        self._counted_s = 0.0
        self._counted = 0

    def starting(self, what: str) -> None:
        say(what)

    def began(self, board: Board, *, ago_s: float = 0.0) -> None:
        self._board, self._began_s = board, time.monotonic() - ago_s
        say(f"{board.title}: {count(board.total, board.noun)}")

    def progress(self, news: Progress) -> None:
        assert self._board is not None
        self._tell(self._board.told(news, time.monotonic()))

    def views(self, views: Sequence[JobView]) -> None:
        assert self._board is not None
        self._tell(self._board.seen(views))

    def tick(self) -> None:
        board = self._board
        if board is None:
            return
        now_s = time.monotonic()
        for line in board.lines.values():
            started = (line.name, line.attempt)
            if line.since_s is not None and now_s - line.since_s > LONG_S and started not in self._told:
                self._told.add(started)
                say(f"  {line.name}: running for {duration(now_s - line.since_s)}")
        if not board.few and board.done > self._counted and now_s - self._counted_s > COUNTS_S:
            self._counted_s, self._counted = now_s, board.done
            say(f"  {board.summary(now_s - self._began_s)}: {tally(board.counts)}")

    def close(self) -> None:
        board, self._board = self._board, None
        if board is not None and board.over:
            say(board.ending(time.monotonic() - self._began_s))

    def _tell(self, changed: Sequence[Line]) -> None:
        assert self._board is not None
        quiet = [line for line in changed if line.status not in TROUBLE]
        if not self._board.few:
            quiet = []
        elif len(quiet) > NAMED:
            say(f"  {', '.join(line.name for line in quiet[:NAMED])} and {len(quiet) - NAMED} more: ended")
            quiet = []
        for line in changed:
            if line.status in TROUBLE or line in quiet:
                say(f"  {line.text()}")


FIGURES = 32
"""Characters of a line for status and time."""


class Drawing(Display):
    """A table that is drawn anew."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._spinner = Spinner("dots" if "utf" in self._console.encoding.lower() else "line")
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._board: Board | None = None
        self._what = ""
        self._since_s = time.monotonic()
        self._over = False

    def starting(self, what: str) -> None:
        self._what = what
        self._live.start()
        self.tick()

    def began(self, board: Board, *, ago_s: float = 0.0) -> None:
        self._board, self._since_s = board, time.monotonic() - ago_s

    def progress(self, news: Progress) -> None:
        assert self._board is not None
        self._board.told(news, time.monotonic())

    def views(self, views: Sequence[JobView]) -> None:
        assert self._board is not None
        self._board.seen(views)

    def note(self, text: str) -> None:
        with contextlib.suppress(OSError):
            self._console.print(Text(clean(text)), soft_wrap=True)

    def tick(self) -> None:
        with contextlib.suppress(OSError):
            self._live.update(self._drawn(), refresh=True)

    def close(self) -> None:
        if self._over:
            return
        self._over = True
        with contextlib.suppress(OSError):
            if self._board is None:
                self._live.transient = True
            else:
                self._live.update(self._drawn(), refresh=True)
            self._live.stop()

    def _drawn(self) -> RenderableType:
        now_s = time.monotonic()
        board = self._board
        if board is None:
            self._spinner.update(text=Text(self._what, overflow="ellipsis", no_wrap=True))
            return self._spinner
        head = Text.assemble(
            (board.status.replace("_", " "), STYLES.get(board.status, "")), "  ", (clean(board.title), "bold")
        )
        counts = Text(board.summary(now_s - self._since_s))
        if not board.few and board.counts:
            counts.append(f": {tally(board.counts)}")
        for text in (head, counts):
            text.no_wrap, text.overflow = True, "ellipsis"
        return Group(head, counts, self._table(board, now_s))

    def _table(self, board: Board, now_s: float) -> RenderableType:
        room = max(3, self._console.height - 5)
        lines = list(board.lines.values())
        if len(lines) > room:
            lines.sort(key=lambda line: (line.status not in TROUBLE, line.status != "running"))
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 1), expand=False)
        widest = max((cell_len(line.name) for line in lines[:room]), default=0)
        names = min(widest, max(10, self._console.width // 3))
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=names)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, justify="right")
        # Only notes are cut where there is no room.
        table.add_column(no_wrap=True, overflow="ellipsis", max_width=max(1, self._console.width - names - FIGURES))
        for line in lines[:room]:
            status = line.status.replace("_", " ")
            if line.attempt > 1:
                status = f"{status} ({line.attempt})"
            took = now_s - line.since_s if line.since_s is not None else line.took_s
            shown = "" if took is None or line.status in ("skipped", "cancelled") else duration(took)
            style = STYLES.get(line.status, "")
            table.add_row(Text(clean(line.name)), Text(status, style), shown, Text(clean(line.note), style="dim"))
        if len(lines) > room:
            return Group(table, Text(f" and {len(lines) - room} more"))
        return table
