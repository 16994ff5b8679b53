"""Real workflows and everyday plans, their tasks replaced by sleeping: each takes as long as its longest path."""

import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import comagent
from comagent.config import Config
from comagent.plan import OUTPUTS
from comagent.store import Store
from comagent.store.base import Outcome
from tests.acceptance.support import opened

DATA = Path(__file__).parents[3] / "shared" / "data"
TRACES = sorted((DATA / "wfinstances").glob("*.json"))
PLANS = DATA / "asynchow" / "plans.json"
COUNT = 200
"""Plans that run at the same time."""

TRACE_S = 3.5
PLAN_S = 2.0
LEAST_S = 0.02
"""Shortest task of a plan."""
RELATIVE, ABSOLUTE_S = 0.05, 0.05
"""How much longer than its longest path a job may take, and how long a task may wait that could begin."""
TURN_S = 0.001
"""What it costs to submit a job and to tell of its end: where many begin and end at the same time, they take turns."""
ROUNDS = 3


class Graph(NamedTuple):
    """Tasks, what each needs, and how long each sleeps."""

    name: str
    needs: Mapping[str, list[str]]
    seconds: Mapping[str, float]

    def longest_path_s(self) -> float:
        ends: dict[str, float] = {}
        for task in TopologicalSorter(self.needs).static_order():
            ends[task] = self.seconds[task] + max((ends[need] for need in self.needs[task]), default=0.0)
        return max(ends.values())

    def scaled(self, to_s: float, *, least_s: float = 0.0) -> "Graph":
        """The same tasks, so quick that the longest path takes about `to_s`."""
        factor = to_s / self.longest_path_s()
        return self._replace(seconds={task: max(least_s, s * factor) for task, s in self.seconds.items()})

    def process(self) -> dict[str, Any]:
        tasks = [
            {"id": task, "tool": "debug.sleep", "needs": needs, "with": {"seconds": self.seconds[task]}}
            for task, needs in self.needs.items()
        ]
        return {"name": self.name, "tasks": tasks}


class Home(NamedTuple):
    client: comagent.Client
    store: Store

    def outcomes(self, job: comagent.Job) -> dict[str, Outcome]:
        """Outcomes by task, in the order of their commits."""
        return {row.outcome.task: row.outcome for row in self.store.progress(job.job_id) if row.outcome.task != OUTPUTS}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("traces")
    with comagent.connect(config=Config(home=folder)) as client, opened(folder) as store:
        # Whatever happens once only, the first time that something runs, is over before anything is measured.
        client.submit(Graph("first", {"a": []}, {"a": 0.0}).process()).result(timeout=60)
        yield Home(client, store)


class Timed(NamedTuple):
    """A job that ended: what became of its tasks, and how long its client waited for it."""

    graph: Graph
    outcomes: dict[str, Outcome]
    waited_s: float
    turn_s: float
    """How long it may take until it is its client's turn, where many jobs begin and end at the same time."""

    def complaints(self) -> list[str]:
        """What took longer than it may: the job for its client, its tasks together, or a task that could have begun."""
        outcomes, longest_s = self.outcomes, self.graph.longest_path_s()
        spare_s = longest_s * RELATIVE + ABSOLUTE_S
        began_ms = min(outcome.started_ms for outcome in outcomes.values())
        ready_ms = {
            task: max((outcomes[need].ended_ms for need in needs), default=began_ms)
            for task, needs in self.graph.needs.items()
        }
        late_s = {
            "the client": self.waited_s - longest_s - self.turn_s,
            "its tasks": (max(outcome.ended_ms for outcome in outcomes.values()) - began_ms) / 1000 - longest_s,
            **{f"task {task}": (outcomes[task].started_ms - ready_ms[task]) / 1000 for task in ready_ms},
        }
        assert min(late_s[f"task {task}"] for task in ready_ms) >= 0, "a task began before what it needs had ended"
        return [f"{self.graph.name}: {what}, by {s:.3f} s" for what, s in late_s.items() if s > spare_s]


def run(home: Home, graphs: Sequence[Graph]) -> list[Timed]:
    """Runs all graphs at the same time."""
    prepared = [home.client.prepare(graph.process()) for graph in graphs]
    began_s = time.monotonic()
    jobs = home.client.submit_many([(each, {}) for each in prepared])
    left = {job.job_id: job for job in jobs}
    waited_s: dict[str, float] = {}
    while left:
        for job_id, view in home.client.wait_any(list(left.values()), timeout=60).items():
            assert view.status == "succeeded"
            waited_s[job_id] = time.monotonic() - began_s
            del left[job_id]
    turn_s = TURN_S * (len(jobs) - 1)
    timed = [
        Timed(graph, home.outcomes(job), waited_s[job.job_id], turn_s) for graph, job in zip(graphs, jobs, strict=True)
    ]
    assert all(each.outcomes.keys() == each.graph.needs.keys() for each in timed)
    return timed


def assert_punctual(home: Home, graphs: Sequence[Graph]) -> None:
    """A busy machine delays now this and now that; what the engine delays is late each time."""
    late = {graph.name for graph in graphs}
    for _ in range(ROUNDS):
        found = {timed.graph.name: timed.complaints() for timed in run(home, graphs)}
        late = {name for name in late if found[name]}
        if not late:
            return
    raise AssertionError("\n".join(complaint for name in sorted(late) for complaint in found[name]))


def trace(path: Path) -> Graph:
    workflow = json.loads(path.read_text())["workflow"]
    needs = {task["id"]: task["parents"] for task in workflow["specification"]["tasks"]}
    return Graph(path.stem, needs, {task["id"]: task["runtimeInSeconds"] for task in workflow["execution"]["tasks"]})


@pytest.mark.skipif(not TRACES, reason=f"there are no traces in {DATA / 'wfinstances'}")
@pytest.mark.parametrize("path", TRACES, ids=lambda path: path.stem)
def test_a_workflow_takes_as_long_as_its_longest_path(home: Home, path: Path) -> None:
    assert_punctual(home, [trace(path).scaled(TRACE_S)])


def plan(number: int, document: dict[str, Any]) -> Graph:
    """A plan without the marks of its start and its end."""
    needs: dict[str, list[str]] = {step: [] for step in document["seconds"]}
    for before, after in document["edges"]:
        if before != "START" and after != "END":
            needs[after].append(before)
    return Graph(f"plan {number}", needs, document["seconds"])


@pytest.mark.skipif(not PLANS.exists(), reason=f"there is no {PLANS}")
def test_two_hundred_plans_at_the_same_time_take_as_long_as_the_longest_path_of_each(home: Home) -> None:
    graphs = []
    for number, document in enumerate(json.loads(PLANS.read_text())[:COUNT]):
        graph = plan(number, document)
        assert graph.longest_path_s() == pytest.approx(document["optimal_seconds"])
        graphs.append(graph.scaled(PLAN_S, least_s=LEAST_S))
    assert_punctual(home, graphs)


def test_a_fast_branch_does_not_wait_for_a_slow_one(home: Home) -> None:
    fast = [f"fast{number}" for number in range(10)]
    needs = {"slow": [], "join": ["slow", fast[-1]], fast[0]: [], **{b: [a] for a, b in itertools.pairwise(fast)}}
    graph = Graph("branches", needs, {"slow": 2.0, "join": 0.0, **dict.fromkeys(fast, 0.05)})
    (timed,) = run(home, [graph])
    assert list(timed.outcomes) == [*fast, "slow", "join"], "not in the order of their commits"
    assert timed.outcomes[fast[-1]].ended_ms < timed.outcomes["slow"].ended_ms
    assert_punctual(home, [graph])
