"""Parts of a run are killed in the middle of a job of a thousand tasks: the job ends as if nothing had happened."""

import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comagent.store import Store
from comagent.store.base import ProgressRow
from tests.acceptance.driver import expected
from tests.acceptance.support import AGENT, SCHEDULER, SUPERVISOR, Run, committed, ledger, opened, running, until

STAGES = 20
TASKS = 50 * STAGES


class Case:
    """A job that runs, and the means to look at it."""

    def __init__(self, run: Run, store: Store, *, ledger: Path, job_id: str):
        self.run = run
        self.store = store
        self.ledger = ledger
        self.job_id = job_id
        self.known: list[ProgressRow] = []

    def reach(self, tasks: int) -> None:
        """Waits for so many outcomes, and remembers what is committed by then."""
        self.known = committed(self.store, self.job_id, tasks)
        self.run.below()

    def kill(self, *processes: psutil.Process) -> None:
        for process in processes:
            process.kill()

    def ends_well(self) -> None:
        """The right result, one outcome a task, nothing run again that was committed, and nobody left behind."""
        assert self.run.told("result") == {"sum": expected(STAGES)}
        self.run.below()
        self.run.told("closed")
        assert self.run.ended() == 0
        rows = self.store.progress(self.job_id)
        assert Counter(row.outcome.status for row in rows) == {"succeeded": TASKS + 1}
        assert len({row.outcome.task for row in rows}) == TASKS + 1
        assert [row.seq for row in rows] == sorted({row.seq for row in rows})
        epochs = [row.epoch for row in rows]
        assert epochs == sorted(epochs)
        calls = Counter(entry.task for entry in ledger(self.ledger))
        assert len(calls) == TASKS
        again = {row.outcome.task: calls[row.outcome.task] for row in self.known if calls[row.outcome.task] > 1}
        assert not again
        assert self.run.left() == []


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    home, lines = tmp_path / "home", tmp_path / "ledger"
    with running(home, "run", str(home), str(lines), str(STAGES)) as run:
        job_id = run.told("submitted")
        with opened(home) as store:
            yield Case(run, store, ledger=lines, job_id=job_id)


@pytest.mark.parametrize("titles", [(AGENT,), (SCHEDULER,), (SUPERVISOR,), (SCHEDULER, AGENT), (SUPERVISOR, SCHEDULER)])
def test_a_job_survives_the_death_of(case: Case, titles: tuple[str, ...]) -> None:
    case.reach(TASKS // 3)
    case.kill(*[case.run.actor(title) for title in titles])
    case.ends_well()
