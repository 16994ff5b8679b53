"""A run of its own, attended from its start to its end, with an ear for signals.

A thread starts Ray and speaks to it; this process's main thread only reads one queue, in which the thread and the
signals put what happens. So nobody waits for Ray to answer before a signal is heard, and Ray, which is not started from
the main thread, leaves the signals alone. Ray blocks SIGINT in all it starts: a Ctrl-C reaches this process only.
"""

import contextlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import psutil

from comagent.cli.board import Board
from comagent.cli.display import Display
from comagent.config import Config
from comagent.job_view import JobView, Progress
from comagent.states import JOB_ENDS

if TYPE_CHECKING:
    from comagent.client import Client

CANCEL_S = 5.0
"""How long an interrupted job may take to end."""
TICK_S = 0.1
PAUSE_S = 0.05
"""Between two questions: what happens meanwhile is told together."""
POLL_S = 0.5
"""What has begun since the last answer is only in the next one, so nobody waits long for that."""
SHOWN_JOBS = 20
STOPS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM", signal.SIGHUP: "SIGHUP"}


class End(NamedTuple):
    """How a job ended."""

    job_id: str
    status: str
    outputs: Any
    """By name; None if the job did not succeed."""
    tasks: dict[str, int]
    """How many tasks ended in each status."""
    failures: list[tuple[str, str, str]]
    """(task, status, what happened)"""

    @property
    def exit_code(self) -> int:
        return 0 if self.status == "succeeded" else 1


class Attended(NamedTuple):
    """What came of a run."""

    ends: list[End]
    interrupted: bool

    @property
    def exit_code(self) -> int:
        """That of the worst end; 130 if there was a Ctrl-C, however the jobs ended."""
        return 130 if self.interrupted else max((end.exit_code for end in self.ends), default=0)


class _Began(NamedTuple):
    client: "Client"
    job_ids: list[str]


class _Closed(NamedTuple):
    problem: BaseException | None


class _Views(NamedTuple):
    views: list[JobView]


_News = _Began | Progress | _Views | list[End] | _Closed | signal.Signals
_Inbox = queue.SimpleQueue[_News]


def attend(
    config: Config,
    begin: "Callable[[Client], list[str]]",
    *,
    board: Callable[[list[str]], Board],
    display: Display,
    on_end: Callable[[list[End]], None],
) -> Attended:
    """Starts a run, lets `begin` submit or take over jobs, and follows them to their ends; `on_end` gets these.

    Raises what the run raises. On a first SIGINT the jobs are cancelled; on a second, on SIGTERM and on SIGHUP this
    process ends at once, with everything the run has started.
    """
    inbox: _Inbox = queue.SimpleQueue()
    began: _Began | None = None
    ends: list[End] | None = None
    unread: OSError | None = None
    stop_s: float | None = None
    with _Ear(inbox) as ear:
        display.starting("starting a local Ray")
        threading.Thread(target=_work, args=(config, begin, inbox), name="run", daemon=True).start()
        while True:
            display.tick()
            if stop_s is not None and ends is None and time.monotonic() > stop_s:
                _stop(display, began, f"not cancelled within {CANCEL_S:g} s", signal.SIGINT)
            try:
                news = inbox.get(timeout=TICK_S)
            except queue.Empty:
                continue
            match news:
                case _Began():
                    began = news
                    # Ray's start puts a handler before ours that prints a stack.
                    ear.listen()
                    if began.job_ids:
                        display.began(board(began.job_ids))
                case Progress():
                    display.progress(news)
                case _Views(views):
                    display.views(views)
                case list():
                    ends = news
                    display.tick()
                    display.close()
                    try:
                        on_end(ends)
                    except OSError as error:
                        # Nobody reads: the run must end in good order all the same.
                        unread = error
                case _Closed(problem):
                    display.close()
                    failed = problem or unread
                    if failed is not None:
                        raise failed
                    return Attended(ends or [], interrupted=stop_s is not None)
                case signal.SIGINT if began is not None and ends is None and stop_s is None:
                    stop_s = time.monotonic() + CANCEL_S
                    what = "the job" if len(began.job_ids) == 1 else "the jobs"
                    again = f"Press it again to stop at once and keep {what} resumable."
                    display.note(f"Ctrl-C: cancelling {what}. {again}")
                    threading.Thread(target=_cancel, args=began, daemon=True).start()
                case signal.Signals():
                    _stop(display, None if ends is not None else began, STOPS[news], news)


class _Ear:
    """Puts signals into an inbox, except those that this process was told to ignore, as `nohup` does."""

    def __init__(self, inbox: _Inbox):
        self._inbox = inbox
        self._before = {n: handler for n in STOPS if (handler := signal.getsignal(n)) != signal.SIG_IGN}

    def listen(self) -> None:
        for number in self._before:
            signal.signal(number, lambda heard, _: self._inbox.put(signal.Signals(heard)))

    def __enter__(self) -> "_Ear":
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def _stop(display: Display, began: _Began | None, why: str, number: int) -> NoReturn:
    """Ends this process and all it has started, without a word to Ray. What was committed stays."""
    if began is not None and began.job_ids:
        ids = began.job_ids
        again = f"comagent resume {ids[0]}" if len(ids) == 1 else "comagent resume --all"
        text = f"{why}: stopped. What is done is kept: `{again}` goes on."
    else:
        text = f"{why}: stopped."
    with contextlib.suppress(Exception):
        display.close()
        display.note(text)
    # Twice: the first round may meet one that is just starting another.
    for _ in range(2):
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error):
                child.kill()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(128 + number)


def _cancel(client: "Client", job_ids: Sequence[str]) -> None:
    for job_id in job_ids:
        with contextlib.suppress(Exception):
            client.cancel(job_id)


def _work(config: Config, begin: "Callable[[Client], list[str]]", inbox: _Inbox) -> None:
    problem: BaseException | None = None
    try:
        from comagent.embedded import connect

        # Ray tells of its modes at every start, and that it leaves SIGTERM alone, as it should here.
        logging.getLogger("ray").setLevel(logging.ERROR)
        with connect(config=config) as client:
            job_ids = begin(client)
            inbox.put(_Began(client, job_ids))
            if len(job_ids) == 1:
                _follow(client, job_ids[0], inbox)
            elif job_ids:
                _follow_all(client, job_ids, inbox)
            inbox.put([_end(client, job_id) for job_id in job_ids])
    except BaseException as error:  # noqa: BLE001 - raised again in the main thread
        problem = error
    inbox.put(_Closed(problem))


def _follow(client: "Client", job_id: str, inbox: _Inbox) -> None:
    seq = 0
    while True:
        news = client.progress(job_id, seq, POLL_S)
        seq = max(seq, news.seq)
        inbox.put(news)
        if news.status in JOB_ENDS and not news.ends:
            return
        time.sleep(PAUSE_S)


def _follow_all(client: "Client", job_ids: Sequence[str], inbox: _Inbox) -> None:
    left = {job_id: client.job(job_id) for job_id in job_ids}
    while left:
        views = client.wait_any(list(left.values()), 1.0)
        if not views:
            views = {job_id: client.view(job_id) for job_id in list(left)[:SHOWN_JOBS]}
        inbox.put(_Views(list(views.values())))
        left = {job_id: job for job_id, job in left.items() if job_id not in views or not views[job_id].over}


def _end(client: "Client", job_id: str) -> End:
    view = client.view(job_id)
    outputs = client.value(view.result) if view.status == "succeeded" else None
    return End(job_id, view.status, outputs, view.summary(), client.failures(job_id))
