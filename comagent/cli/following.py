"""A job that another process runs, followed by looking into the store."""

import time
from collections.abc import Iterator
from typing import NamedTuple

from comagent.cli.jobs import without_owner
from comagent.coordination import Coordination
from comagent.errors import UnknownJobError
from comagent.store import EventRow, JobRecord, ProgressRow, Store

POLL_S = 0.25
PAGE = 1_000
"""Rows that are read at a time."""


class News(NamedTuple):
    """What a look into the store has found."""

    record: JobRecord
    rows: list[ProgressRow | EventRow]
    """What was committed since the last look; at most a page."""
    gone: bool
    """The job has not ended, and nobody runs it."""

    @property
    def last(self) -> bool:
        """Whether nothing more will come."""
        return len(self.rows) < PAGE and (self.record.ended_ms is not None or self.gone)


def so_far(store: Store, coordination: Coordination, job: str, *, after_seq: int = 0) -> Iterator[News]:
    """How the job stands, and what was committed after `after_seq`, page by page. Raises `UnknownJobError`."""
    while True:
        # The record comes first: what was committed together with its last status is then among the rows.
        record = store.job(job)
        if record is None:
            raise UnknownJobError(job)
        gone = without_owner(coordination, [record])
        news = News(record, store.stream(job, after_seq=after_seq, limit=PAGE), bool(gone))
        yield news
        if len(news.rows) < PAGE:
            return
        after_seq = news.rows[-1].seq


def follow(store: Store, coordination: Coordination, job: str, *, after_seq: int = 0) -> Iterator[News]:
    """Looks again and again, until the job has ended or nobody runs it. Raises `UnknownJobError`."""
    while True:
        for news in so_far(store, coordination, job, after_seq=after_seq):
            after_seq = news.rows[-1].seq if news.rows else after_seq
            yield news
            if news.last:
                return
        time.sleep(POLL_S)
