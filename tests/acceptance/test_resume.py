"""Whole runs are killed, with everything that Ray has started, and `comagent resume` goes on with their jobs."""

import contextlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from comagent.plan import OUTPUTS
from comagent.store import Store
from tests.acceptance.driver import expected
from tests.acceptance.support import COMAGENT, DRIVER, Tree, calls, committed, done, name, opened, running
from tests.waiting import until

STAGES = 20
TASKS = 50 * STAGES
MOMENTS = {"before the first commit": 0, "early": 60, "half way": TASKS // 2, "nearly done": TASKS - 60}
ALONE = "half way, its program alone"
END_S = 10.0


class Killed(NamedTuple):
    """A job whose run was killed."""

    job_id: str
    ledger: Path
    done: set[str]
    """Tasks that were committed by then."""
    ran: Counter[str]
    """How often each task had been begun."""


class Aftermath(NamedTuple):
    """What is left of several killed runs that shared a home, after two times `comagent resume`."""

    store: Store
    killed: dict[str, Killed]
    resumed: dict[str, dict[str, object]]
    """What the second resume printed of each job that the first did not end."""
    trees: list[Tree]


def killed(store: Store, tree: Tree, *, ledger: Path, tasks: int, kill: Callable[[], None]) -> Killed:
    """Submits a job, and kills its run when so many tasks are committed."""
    assert tree.told("connected")
    before = set(store.unfinished())
    tree.below()
    tree.order(stages=STAGES, ledger=str(ledger))
    (job_id,) = until(lambda: set(store.unfinished()) - before)
    committed(store, job_id, at_least=tasks) if tasks else None
    kill()
    return Killed(job_id, ledger, done(store, job_id), Counter(call.task for call in calls(ledger)))


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aftermath]:
    folder = tmp_path_factory.mktemp("resume")
    home = folder / "home"
    home.mkdir()
    with contextlib.ExitStack() as stack:
        store = stack.enter_context(opened(home))
        jobs: dict[str, Killed] = {}
        trees: list[Tree] = []

        def started(*command: str) -> Tree:
            trees.append(stack.enter_context(running(command, home=home)))
            return trees[-1]

        for moment, tasks in MOMENTS.items():
            tree = started(*DRIVER)
            jobs[moment] = killed(store, tree, ledger=folder / moment, tasks=tasks, kill=tree.kill_tree)
        tree = started(*DRIVER)
        jobs[ALONE] = killed(store, tree, ledger=folder / ALONE, tasks=TASKS // 2, kill=lambda: end_alone(tree))
        stopped = started(*COMAGENT, "resume", "--all")
        until(lambda: all(len(done(store, job.job_id)) > len(job.done) for job in jobs.values()))
        stopped.kill_tree()
        assert store.unfinished()
        for moment, job in jobs.items():
            ran = Counter(call.task for call in calls(job.ledger))
            again = [task for task in job.done - {OUTPUTS} if ran[task] != job.ran[task]]
            assert again == [], moment
            jobs[moment] = job._replace(done=done(store, job.job_id), ran=ran)
        resumed = started(*COMAGENT, "resume", "--all", "--json")
        assert resumed.ended(within_s=100) == 0, resumed.errors()
        ends = {end["job_id"]: end for end in json.loads("".join(resumed.lines))}
        yield Aftermath(store, jobs, ends, trees)


def end_alone(tree: Tree) -> None:
    """Kills the program itself; its actors then end by themselves, within seconds."""
    tree.kill_alone()
    killed_s = time.monotonic()
    until(lambda: not any(name(process).startswith("ray::S") for process in tree.left()))
    assert time.monotonic() - killed_s < END_S


@pytest.mark.parametrize("moment", [*MOMENTS, ALONE])
@pytest.mark.timeout(240)
def test_a_job_of_a_run_that_was_killed_is_resumed(aftermath: Aftermath, moment: str) -> None:
    job = aftermath.killed[moment]
    rows = aftermath.store.progress(job.job_id)
    assert Counter(row.outcome.status for row in rows) == {"succeeded": TASKS + 1}
    assert len({row.outcome.task for row in rows}) == TASKS + 1
    epochs = [row.epoch for row in rows]
    assert epochs == sorted(epochs)
    outputs = aftermath.store.outcome(job.job_id, OUTPUTS)
    assert outputs is not None
    assert json.loads(outputs.outcome.result or b"") == {"sum": expected(STAGES)}
    if OUTPUTS not in job.done:
        assert aftermath.resumed[job.job_id]["outputs"] == {"sum": expected(STAGES)}


@pytest.mark.parametrize("moment", [*MOMENTS, ALONE])
def test_what_was_committed_before_a_kill_never_runs_again(aftermath: Aftermath, moment: str) -> None:
    job = aftermath.killed[moment]
    ran = Counter(call.task for call in calls(job.ledger))
    assert len(ran) == TASKS
    assert [task for task in job.done - {OUTPUTS} if ran[task] != job.ran[task]] == []


def test_resume_ends_what_killed_runs_have_left_behind(aftermath: Aftermath) -> None:
    assert [process for tree in aftermath.trees for process in tree.left()] == []
