"""Parts of a run are killed, or stopped, in the middle of a job of a thousand tasks: it ends as if nothing had been."""

import contextlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from comagent.store import Store
from tests.acceptance.driver import expected
from tests.acceptance.support import (
    AGENT,
    DRIVER,
    SCHEDULER,
    SUPERVISOR,
    Tree,
    calls,
    committed,
    is_running,
    opened,
    running,
)
from tests.waiting import until

STAGES = 20
TASKS = 50 * STAGES


class Case:
    """A job that runs, and what is known of it."""

    def __init__(self, tree: Tree, store: Store, *, ledger: Path, job_id: str):
        self.tree = tree
        self.store = store
        self.ledger = ledger
        self.job_id = job_id
        self.done: set[str] = set()

    def reach(self, tasks: int) -> None:
        """Waits for so many outcomes, and remembers what is committed by then."""
        self.done = committed(self.store, self.job_id, at_least=tasks)

    def actor(self, title: str) -> psutil.Process:
        """The youngest actor with this title, as soon as there is one."""
        return until(lambda: self.tree.actors(title)[-1:])[0]

    def successor(self, title: str, before: list[psutil.Process]) -> psutil.Process:
        """An actor with this title that was not there before."""
        return until(lambda: [actor for actor in self.tree.actors(title) if actor not in before])[0]

    def ends_well(self) -> None:
        """The right result, one outcome for each task, and nothing that was committed before the kill ran again."""
        assert self.tree.told("result") == {"sum": expected(STAGES)}
        rows = self.store.progress(self.job_id)
        assert Counter(row.outcome.status for row in rows) == {"succeeded": TASKS + 1}
        assert len({row.outcome.task for row in rows}) == TASKS + 1
        epochs = [row.epoch for row in rows]
        assert epochs == sorted(epochs)
        ran = Counter(call.task for call in calls(self.ledger))
        assert len(ran) == TASKS
        assert [task for task in self.done if ran[task] > 1] == []


class Host:
    """One run for all these tests, replaced after a test in which it failed."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._number = 0
        self.home = folder
        self.tree: Tree | None = None

    def ready(self) -> Tree:
        if self.tree is None:
            self._number += 1
            self.home = self._folder / f"home{self._number}"
            self.tree = self._stack.enter_context(running(DRIVER, home=self.home))
            assert self.tree.told("connected")
        return self.tree

    def drop(self) -> None:
        self._stack.close()
        self.tree = None


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Host]:
    host = Host(tmp_path_factory.mktemp("kills"))
    yield host
    host.drop()


@pytest.fixture
def case(host: Host, tmp_path: Path) -> Iterator[Case]:
    tree = host.ready()
    ledger = tmp_path / "ledger"
    tree.order(stages=STAGES, ledger=str(ledger))
    with opened(host.home) as store:
        case = Case(tree, store, ledger=ledger, job_id=tree.told("submitted"))
        yield case
        if store.unfinished():
            host.drop()


@pytest.mark.parametrize(
    "titles",
    [(AGENT,), (SCHEDULER,), (SUPERVISOR,), (SCHEDULER, AGENT), (SCHEDULER, SUPERVISOR), (SUPERVISOR, AGENT)],
    ids=lambda titles: " and ".join(title.removeprefix("ray::") for title in titles),
)
def test_a_job_survives_the_death_of(case: Case, titles: tuple[str, ...]) -> None:
    case.reach(TASKS // 3)
    for actor in [case.actor(title) for title in titles]:
        actor.kill()
    case.ends_well()


def test_a_job_survives_the_death_of_all_agents_at_once(case: Case) -> None:
    case.reach(TASKS // 3)
    for agent in case.tree.actors(AGENT):
        agent.kill()
    case.ends_well()


def test_a_job_survives_the_death_of_a_scheduler_and_of_its_successor_as_it_starts(case: Case) -> None:
    case.reach(TASKS // 3)
    first = case.actor(SCHEDULER)
    first.kill()
    second = case.successor(SCHEDULER, [first])
    second.kill()
    case.successor(SCHEDULER, [first, second])
    case.ends_well()


def test_a_job_survives_the_deaths_of_two_schedulers_that_both_got_something_done(case: Case) -> None:
    case.reach(TASKS // 4)
    case.actor(SCHEDULER).kill()
    case.reach(TASKS // 2)
    case.actor(SCHEDULER).kill()
    case.ends_well()


def test_an_agent_that_stands_still_is_replaced_and_does_nothing_when_it_wakes(case: Case) -> None:
    case.reach(TASKS // 3)
    before = case.tree.actors(AGENT)
    agent = before[-1]
    agent.suspend()
    by_then = [call for call in calls(case.ledger) if call.pid == agent.pid]
    case.successor(AGENT, before)
    with contextlib.suppress(psutil.NoSuchProcess):
        agent.resume()
    case.ends_well()
    assert [call for call in calls(case.ledger) if call.pid == agent.pid] == by_then


def test_a_scheduler_dies_while_an_agent_stands_still(case: Case) -> None:
    case.reach(TASKS // 3)
    case.actor(AGENT).suspend()
    case.actor(SCHEDULER).kill()
    case.ends_well()


def test_a_scheduler_that_stands_still_is_replaced_and_does_nothing_when_it_wakes(case: Case) -> None:
    case.reach(TASKS // 3)
    before = case.tree.actors(SCHEDULER)
    before[-1].suspend()
    case.successor(SCHEDULER, before)
    with contextlib.suppress(psutil.NoSuchProcess):
        before[-1].resume()
    case.ends_well()


def test_a_supervisor_that_stands_still_is_replaced(case: Case) -> None:
    case.reach(TASKS // 3)
    supervisor = case.actor(SUPERVISOR)
    supervisor.suspend()
    until(lambda: not is_running(supervisor))
    case.ends_well()


def test_nothing_is_left_when_the_run_is_closed_after_all_that(host: Host) -> None:
    tree = host.ready()
    tree.below()
    tree.close()
    assert tree.told("closed")
    assert tree.ended() == 0
    assert tree.left() == []
