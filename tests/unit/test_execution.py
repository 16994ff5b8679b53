"""What an agent does with units, without the actor around it."""

import asyncio
import json
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from comagent import spec
from comagent.execution import Executor
from comagent.plan import Plan
from comagent.protocol import BATCH, Large, Part, Report, Row, Running, Unit, Wire
from comagent.states import TASK_LABELS
from comagent.store.documents import Documents
from comagent.submission import prepare
from tests.toolbox import RAISES, UNSTORABLE, named
from tests.waiting import gone, until_async, written

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])


class Desk:
    """An executor, what it is given, and what it reports."""

    def __init__(self, documents: Documents):
        self.executor = Executor(documents, self._report)
        self.executor.fence((1, 1))
        self.reports: list[Report] = []
        self.tainted = False
        self._sent = 0
        self._news = asyncio.Event()

    def _report(self, report: Report, tainted: bool) -> None:
        self.reports.append(report)
        self.tainted |= tainted
        self._news.set()

    def start(self, lane: str, tasks: Sequence[dict[str, Any]], **options: Any) -> Unit:
        """Begins a unit of these tasks, which run in this order."""
        unit = self.unit(lane, tasks, **options)
        self.executor.start(unit, {})
        return unit

    def unit(
        self,
        lane: str,
        tasks: Sequence[dict[str, Any]],
        *,
        seeds: int | None = None,
        job_id: str = "job",
        attempt: int = 1,
        literals: dict[str, Wire] | None = None,
        inputs: bytes = b"{}",
        only: Sequence[str] | None = None,
    ) -> Unit:
        plan = plan_of(tasks)
        chosen = range(len(plan)) if only is None else [plan.index[name] for name in only]
        self._sent += 1
        tools = {number: (use.name, use.kind, use.code) for number, use in enumerate(plan.tools)}
        parts = [Part(index, attempt, plan.ids[index], plan.steps[index]) for index in chosen]
        count = len(parts) if seeds is None else seeds
        return Unit((1, 1, self._sent), job_id, lane, parts, count, tools, inputs, literals or {}, {})

    async def rows(self, unit: Unit) -> dict[str, Row]:
        """What became of each part, by its path; waits until all were run or handed back."""
        while self.executor.has(unit.dispatch):
            self._news.clear()
            await self._news.wait()
        paths = {part[0]: part[2] for part in unit.parts}
        mine = [report for report in self.reports if report.dispatch == unit.dispatch]
        rows = {paths[row[0]]: Row(*row) for report in mine for row in report.rows}
        handed_back = [paths[index] for report in mine for index in report.not_run]
        assert sorted([*rows, *handed_back]) == sorted(paths.values())
        assert len(rows) + len(handed_back) == len(paths)
        return rows

    def not_run(self, unit: Unit) -> list[tuple[str, str | None]]:
        paths = {part[0]: part[2] for part in unit.parts}
        mine = [report for report in self.reports if report.dispatch == unit.dispatch]
        return [(paths[index], report.reason) for report in mine for index in report.not_run]


def plan_of(tasks: Sequence[dict[str, Any]]) -> Plan:
    return prepare(spec.parse({"name": "test", "inputs": {"x": {"default": 1}}, "tasks": list(tasks)})).plan


def echo(id: str, value: Any) -> dict[str, Any]:
    return {"id": id, "tool": "debug.echo", "with": {"value": value}}


def task(id: str, function: str, **arguments: Any) -> dict[str, Any]:
    return {"id": id, "tool": named(function), "with": arguments}


def value(row: Row) -> Any:
    assert isinstance(row.payload, bytes)
    assert TASK_LABELS[row.status] == "succeeded", row.payload
    return json.loads(row.payload)


def error(row: Row, status: str = "failed") -> dict[str, str]:
    assert isinstance(row.payload, bytes)
    assert TASK_LABELS[row.status] == status, row.payload
    told: dict[str, str] = json.loads(row.payload)
    return told


@pytest.fixture
async def desk(tmp_path: Path) -> Desk:
    return Desk(Documents(tmp_path / "documents"))


KINDS = ("inline", "thread", "async", "process")
LANES = (BATCH, *KINDS)


def of_kind(kind: str) -> str:
    """What tools for a lane are called: batches run inline ones."""
    return "inline" if kind == BATCH else kind


# Batches of cheap tasks ----------------------------------------------------------------------------------------------


async def test_the_parts_of_a_batch_run_in_order_and_read_each_others_values(desk: Desk) -> None:
    unit = desk.start(BATCH, [echo("a", 1), echo("b", {"x": "${tasks.a}"}), echo("c", "${tasks.b.x + 1}")], seeds=1)
    rows = await desk.rows(unit)

    assert {path: value(row) for path, row in rows.items()} == {"a": 1, "b": {"x": 1}, "c": 2}
    assert len(desk.reports) == 1


async def test_a_thousand_parts_are_one_report(desk: Desk) -> None:
    tasks = [echo("t0", 0)] + [echo(f"t{n}", f"${{tasks.t{n - 1}}}") for n in range(1, 1000)]
    rows = await desk.rows(desk.start(BATCH, tasks, seeds=1))

    assert value(rows["t999"]) == 0
    assert len(desk.reports) <= 2


async def test_values_from_outside_and_inputs_are_read(desk: Desk) -> None:
    tasks = [echo("a", 0), echo("b", {"a": "${tasks.a}", "x": "${inputs.x}"})]
    unit = desk.start(BATCH, tasks, only=["b"], literals={"a": b"[1]"}, inputs=b'{"x":5}')

    assert value((await desk.rows(unit))["b"]) == {"a": [1], "x": 5}


async def test_each_reader_has_a_copy_of_its_own(desk: Desk) -> None:
    tasks = [echo("a", [1]), task("b", "append", value="${tasks.a}"), echo("c", "${tasks.a}")]
    rows = await desk.rows(desk.start(BATCH, tasks, seeds=1))

    assert value(rows["b"]) == [1, 2]
    assert value(rows["c"]) == [1]


async def test_each_reader_of_an_input_has_a_copy_of_its_own(desk: Desk) -> None:
    tasks = [
        task("a", "append", value="${inputs.x}"),
        task("b", "append", value="${inputs.x}"),
        echo("c", "${inputs.x}"),
    ]
    rows = await desk.rows(desk.start(BATCH, tasks, inputs=b'{"x":[1]}'))

    assert {path: value(row) for path, row in rows.items()} == {"a": [1, 2], "b": [1, 2], "c": [1]}


async def test_a_part_whose_condition_is_false_is_skipped(desk: Desk) -> None:
    tasks = [echo("a", 1), echo("b", "${tasks.a}") | {"when": "tasks.a > 1"}]
    rows = await desk.rows(desk.start(BATCH, tasks, seeds=1))

    assert error(rows["b"], "skipped")["type"] == "ConditionFalse"


async def test_what_depends_on_a_failed_part_is_handed_back_and_the_seeds_go_on(desk: Desk) -> None:
    tasks = [task("a", "raise_inline", what="ValueError"), echo("b", 2), echo("c", "${tasks.b}")]
    unit = desk.start(BATCH, tasks, seeds=2)
    rows = await desk.rows(unit)

    assert error(rows["a"])["type"] == "ValueError"
    assert value(rows["b"]) == 2
    assert desk.not_run(unit) == [("c", "upstream")]


async def test_a_large_value_becomes_a_document_and_is_read_in_the_same_batch(desk: Desk, tmp_path: Path) -> None:
    tasks = [task("a", "large_text", megabytes=1), task("b", "length", value="${tasks.a}")]
    rows = await desk.rows(desk.start(BATCH, tasks, seeds=1))
    wire = rows["a"].payload

    assert isinstance(wire, Large)
    assert json.loads(Documents(tmp_path / "documents").get(wire.hash)) == "x" * (1 << 20)
    assert value(rows["b"]) == 1 << 20


async def test_a_document_that_cannot_be_written_fails_its_task(tmp_path: Path) -> None:
    (tmp_path / "documents").write_text("a file where a folder should be")
    desk = Desk(Documents(tmp_path / "documents"))
    for lane, tool in ((BATCH, "large_text"), ("thread", "large_text")):
        rows = await desk.rows(desk.start(lane, [task("a", tool, megabytes=1)]))

        assert error(rows["a"])["type"] == "StoreError"


async def test_what_waits_behind_a_slow_part_is_handed_back_and_what_ended_before_it_is_reported(
    desk: Desk, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    tasks = [echo("a", 1), task("slow", "hang_inline", mark=str(mark)), echo("b", 2)]
    unit = desk.start(BATCH, tasks)
    behind = desk.start(BATCH, [echo("c", 3)])
    await until_async(lambda: len(desk.reports) == 2)

    assert [row[0] for row in desk.reports[0].rows] == [0]
    assert desk.not_run(unit) == [("b", "slow")]
    assert desk.not_run(behind) == [("c", "slow")]
    assert desk.executor.has(unit.dispatch)
    assert not desk.executor.has(behind.dispatch)


async def test_a_slow_part_is_reported_when_it_ends_and_nothing_twice(desk: Desk) -> None:
    tasks = [echo("a", 1), task("slow", "slow_though_cheap", seconds=0.3), echo("b", 2)]
    unit = desk.start(BATCH, tasks)
    rows = await desk.rows(unit)

    assert value(rows["slow"]) == "slow"
    assert desk.not_run(unit) == [("b", "slow")]
    assert sum(len(report.rows) for report in desk.reports) == 2


async def test_a_part_that_runs_out_of_time_is_given_up_and_taints_its_process(desk: Desk, tmp_path: Path) -> None:
    hung = {**task("hung", "hang_inline", mark=str(tmp_path / "mark")), "timeout": 1}
    unit = desk.start(BATCH, [echo("a", 1), hung, echo("b", 2)])
    rows = await desk.rows(unit)
    assert value(rows["a"]) == 1
    assert "timeout of 1 s" in error(rows["hung"], "timed_out")["message"]
    assert "hang_inline" in error(rows["hung"], "timed_out")["traceback"]
    assert desk.not_run(unit) == [("b", "slow")]
    assert desk.tainted


async def test_the_lane_goes_on_after_a_slow_part(desk: Desk) -> None:
    await desk.rows(desk.start(BATCH, [task("slow", "slow_though_cheap", seconds=0.2)]))

    assert value((await desk.rows(desk.start(BATCH, [echo("a", 1)])))["a"]) == 1


async def test_parts_that_lack_a_value_are_handed_back_and_the_others_run(desk: Desk) -> None:
    unit = desk.unit(BATCH, [echo("a", 1), echo("b", 2), echo("c", 3)])
    desk.executor.start(unit, {}, missing=[1])
    rows = await desk.rows(unit)

    assert sorted(rows) == ["a", "c"]
    assert desk.not_run(unit) == [("b", "upstream")]


async def test_a_unit_that_lacks_everything_is_handed_back_whole(desk: Desk) -> None:
    unit = desk.unit(BATCH, [echo("a", 1), echo("b", 2)])
    desk.executor.start(unit, {}, missing=[0, 1])

    assert await desk.rows(unit) == {}
    assert desk.not_run(unit) == [("a", "upstream"), ("b", "upstream")]


async def test_a_unit_that_cannot_be_read_is_handed_back_with_the_reason(desk: Desk) -> None:
    unit = desk.start(BATCH, [echo("a", 1)], inputs=b"{nonsense")

    assert await desk.rows(unit) == {}
    ((path, reason),) = desk.not_run(unit)
    assert path == "a"
    assert reason is not None
    assert "cannot be decoded" in reason


# All kinds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("lane", KINDS)
async def test_each_kind_runs_where_it_should(desk: Desk, lane: str) -> None:
    first = value((await desk.rows(desk.start(lane, [task("a", f"where_{lane}")])))["a"])
    second = value((await desk.rows(desk.start(lane, [task("a", f"where_{lane}")])))["a"])

    if lane == "process":
        assert first[1] == second[1] == os.getpid()
        assert first[0] != second[0]
    else:
        assert first[0] == second[0] == os.getpid()
        assert first[1] != threading.get_ident()
        if lane == "async":
            assert first[1] == second[1]


@pytest.mark.parametrize("lane", LANES)
async def test_tools_are_told_about_their_run(desk: Desk, lane: str) -> None:
    tool = f"context_{of_kind(lane)}"
    told = value((await desk.rows(desk.start(lane, [task("a", tool, fail=0)], attempt=3)))["a"])

    assert told == {
        "job_id": "job",
        "task": "a",
        "attempt": 3,
        "epoch": [1, 1],
        "key": "job/a",
        "deadline_ms": None,
    }


@pytest.mark.parametrize(("what", "kind", "message"), RAISES)
@pytest.mark.parametrize("lane", LANES)
async def test_whatever_a_tool_raises_is_its_error_and_the_next_one_runs(
    desk: Desk, lane: str, what: str, kind: str, message: str
) -> None:
    tool = f"raise_{of_kind(lane)}"
    told = error((await desk.rows(desk.start(lane, [task("a", tool, what=what)])))["a"])

    if lane == "async" and what == "StopIteration":
        kind = "RuntimeError"  # Python's own rule for coroutines
    assert told["type"].rpartition(".")[2] == kind
    assert message in told["message"]
    assert f"in {tool}" in told["traceback"] or what == "RecursionError"
    assert "/comagent/" not in told["traceback"]
    assert len(told["message"]) < 3000
    assert len(told["traceback"]) <= 8000
    assert not desk.tainted
    if lane != "process":
        assert value((await desk.rows(desk.start(lane, [task("a", f"return_{of_kind(lane)}", what="")])))["a"]) is None


async def test_the_cause_of_an_error_is_told(desk: Desk) -> None:
    told = error((await desk.rows(desk.start("thread", [task("a", "raise_thread", what="chained")])))["a"])

    assert "invalid literal for int" in told["traceback"]
    assert told["traceback"].rstrip().endswith("LookupError: no such key")


@pytest.mark.parametrize("what", ["SystemExit", "KeyboardInterrupt"])
async def test_a_task_that_a_coroutine_leaves_behind_cannot_end_the_others(desk: Desk, what: str) -> None:
    for _ in range(2):
        rows = await desk.rows(desk.start("async", [task("a", "raise_in_background", what=what)]))
        assert value(rows["a"]) == "True"


@pytest.mark.parametrize(("what", "message"), UNSTORABLE)
@pytest.mark.parametrize("lane", [BATCH, "thread", "async"])
async def test_what_cannot_be_stored_fails_its_task(desk: Desk, lane: str, what: str, message: str) -> None:
    told = error((await desk.rows(desk.start(lane, [task("a", f"return_{of_kind(lane)}", what=what)])))["a"])

    assert told["type"] == "ValueNotStorableError"
    assert message in told["message"]


@pytest.mark.parametrize("lane", LANES)
async def test_arguments_that_do_not_fit_are_the_tasks_error(desk: Desk, lane: str) -> None:
    tasks = [echo("a", 0), task("b", f"raise_{of_kind(lane)}", what="${tasks.a}")]
    told = error((await desk.rows(desk.start(lane, tasks, only=["b"], literals={"a": b"[1]"})))["b"])

    assert told["type"] == "ArgumentError"
    assert '"what"' in told["message"]


@pytest.mark.parametrize("lane", LANES)
async def test_a_value_that_lacks_what_is_asked_for_is_the_tasks_error(desk: Desk, lane: str) -> None:
    tasks = [echo("a", 0), task("b", f"raise_{of_kind(lane)}", what="${tasks.a.name}")]
    told = error((await desk.rows(desk.start(lane, tasks, only=["b"], literals={"a": b'{"nam":1}'})))["b"])

    assert told["type"] == "ExpressionError"


@pytest.mark.parametrize("lane", LANES)
async def test_a_tool_that_cannot_be_loaded_is_the_tasks_error(desk: Desk, lane: str) -> None:
    unit = desk.unit(lane, [task("a", f"return_{of_kind(lane)}", what="")])
    name, kind, code = unit.tools[0]
    desk.executor.start(unit._replace(tools={0: (name, kind, (*code[:3], "another hash"))}), {})
    told = error((await desk.rows(unit))["a"])

    assert told["type"] == "ToolDefinitionError"
    assert "its source is not the one" in told["message"]


@pytest.mark.parametrize("lane", ["thread", "async", "process"])
async def test_an_attempt_that_takes_too_long_times_out(desk: Desk, lane: str, tmp_path: Path) -> None:
    tool = f"hang_{lane}"
    told = error(
        (await desk.rows(desk.start(lane, [task("a", tool, mark=str(tmp_path / "mark")) | {"timeout": "1s"}])))["a"],
        "timed_out",
    )

    assert told["type"] == "TimeoutError"
    assert told["message"] == "the attempt took longer than its timeout of 1 s"
    assert desk.tainted == (lane == "thread")
    if lane != "process":
        assert f"in {tool}" in told["traceback"]
        assert "/comagent/" not in told["traceback"]


@pytest.mark.parametrize("lane", ["inline", "thread", "async", "process"])
async def test_cancelling_ends_what_runs(desk: Desk, lane: str, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    unit = desk.start(lane, [task("a", f"hang_{lane}", mark=str(mark))])
    other = desk.start(lane, [task("a", f"return_{lane}", what="")], job_id="other")
    await until_async(written(mark))

    desk.executor.cancel("job")

    assert error((await desk.rows(unit))["a"], "cancelled")["type"] == "Cancelled"
    assert value((await desk.rows(other))["a"]) is None
    assert desk.tainted == (lane in ("inline", "thread"))


async def test_a_coroutine_that_refuses_to_end_taints_its_process(desk: Desk, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    unit = desk.start("async", [task("a", "hang_async_and_refuse_to_end", mark=str(mark))])
    await until_async(written(mark))
    desk.executor.cancel("job")

    assert error((await desk.rows(unit))["a"], "cancelled")
    assert desk.tainted


async def test_what_has_not_begun_is_handed_back_when_its_job_is_cancelled(desk: Desk, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    running = desk.start(BATCH, [task("slow", "hang_inline", mark=str(mark)), echo("b", 1)])
    waiting = desk.start(BATCH, [echo("c", 1)])
    await until_async(written(mark))
    desk.executor.cancel("job")

    assert await desk.rows(waiting) == {}
    assert error((await desk.rows(running))["slow"], "cancelled")["type"] == "Cancelled"
    assert desk.not_run(running) == [("b", "cancelled")]
    assert desk.tainted, "the part still runs in the thread of the batches"


async def test_a_blocked_event_loop_holds_up_nothing_else(desk: Desk, tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    unit = desk.start("async", [task("a", "block_loop", mark=str(mark)) | {"timeout": "1s"}])
    await until_async(written(mark))

    assert value((await desk.rows(desk.start(BATCH, [echo("b", 1)])))["b"]) == 1
    told = error((await desk.rows(unit))["a"], "timed_out")
    assert "in block_loop" in told["traceback"]
    assert desk.tainted


async def test_a_coroutine_that_blocks_the_loop_for_long_fails(
    desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("comagent.calls.BLOCKED_S", 0.2)
    mark = tmp_path / "mark"
    unit = desk.start("async", [task("a", "block_loop", mark=str(mark))])
    told = error((await desk.rows(unit))["a"])

    assert told["type"] == "BlockedEventLoop"
    assert "in block_loop" in told["traceback"]
    assert desk.tainted


# Being replaced ------------------------------------------------------------------------------------------------------


async def test_a_fence_drops_what_has_not_begun_and_lists_what_runs(desk: Desk, tmp_path: Path) -> None:
    marks = [tmp_path / "mark0", tmp_path / "mark1"]
    tasks = [echo("a", 1), task("slow", "hang_inline", mark=str(marks[0])), echo("b", 2)]
    batch = desk.start(BATCH, tasks)
    waiting = desk.start(BATCH, [echo("c", 1)])
    single = desk.start("async", [task("d", "hang_async", mark=str(marks[1]))])
    for mark in marks:
        await until_async(written(mark))
    unbegun = desk.start("thread", [task("e", "return_thread", what="")])

    running = desk.executor.fence((1, 2))

    assert running == [
        Running(batch.dispatch, "job", [(0, 1), (1, 1)], BATCH),
        Running(single.dispatch, "job", [(0, 1)], "async"),
    ]
    assert not desk.executor.has(waiting.dispatch)
    assert not desk.executor.has(unbegun.dispatch)


async def test_what_is_handed_back_in_a_race_is_run_by_nobody_else(desk: Desk) -> None:
    """Cancelling and fencing while a batch runs: each part is run, handed back or dropped, and never two of them."""
    for round_ in range(30):
        tasks = [echo(f"t{n}", n) for n in range(200)]
        unit = desk.start(BATCH, tasks)
        for _ in range(round_ % 5):
            await asyncio.sleep(0)
        desk.executor.cancel("job")
        await desk.rows(unit)


# Harm ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("lane", "tool"), [(BATCH, "fork_inline"), ("thread", "fork"), ("process", "fork_in_process")])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
async def test_a_tool_that_forks_and_returns_twice_is_reported_once(
    desk: Desk, tmp_path: Path, lane: str, tool: str
) -> None:
    mark = tmp_path / "mark"
    rows = await desk.rows(desk.start(lane, [task("a", tool, mark=str(mark))]))

    assert value(rows["a"]) == "parent"
    copy = int(mark.read_text())
    if lane != "process":
        os.waitpid(copy, 0)  # noqa: ASYNC222  # it ends at once
    await until_async(gone([copy]))


@pytest.mark.parametrize(("lane", "tool"), [(BATCH, "change_folder_inline"), ("thread", "change_folder")])
async def test_a_tool_that_changes_the_working_folder_does_so_for_itself(
    desk: Desk, tmp_path: Path, lane: str, tool: str
) -> None:
    home = os.getcwd()  # noqa: PTH109
    rows = await desk.rows(desk.start(lane, [task("a", tool, to=str(tmp_path))]))
    assert value(rows["a"]) == str(tmp_path)

    for after in (BATCH, "thread"):
        assert value((await desk.rows(desk.start(after, [task("a", "folder")])))["a"]) == home


async def test_many_calls_at_once_are_all_answered(desk: Desk) -> None:
    units: list[tuple[Unit, Callable[[Any], bool]]] = []
    for number in range(100):
        units.append((desk.start("async", [task("a", "add_later", left=number, right=1)]), (number + 1).__eq__))
        units.append((desk.start("thread", [task("a", "add", left=number, right=2)]), (number + 2).__eq__))
        units.append((desk.start(BATCH, [task("a", "double", value=number)]), (2 * number).__eq__))
    for unit, right in units:
        assert right(value((await desk.rows(unit))["a"]))
