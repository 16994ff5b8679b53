"""Bad tools beside good ones: a bad one fails alone, and says how; the good ones succeed at their first attempt."""

import os
from pathlib import Path
from typing import Any

import psutil
import pytest

import comagent
from comagent.client import Client, Job
from comagent.job_view import TaskEnd
from tests.toolbox import RAISES, UNSTORABLE, named
from tests.waiting import gone, until

WAIT_S = 100.0
NEIGHBOURS = 24


def task(id: str, function: str, arguments: dict[str, Any] | None = None, **rest: Any) -> dict[str, Any]:
    return {"id": id, "tool": named(function), "with": arguments or {}, **rest}


def neighbours() -> list[dict[str, Any]]:
    """Good tasks of all kinds: chains of two, so that some begin when the bad task has done its worst."""
    tools = ("debug.echo", "debug.sleep", named("quick"), named("length_in_process"))
    tasks = []
    for number in range(NEIGHBOURS):
        tool = tools[number % 4] if number < NEIGHBOURS // 2 else tools[number % 3]
        arguments: dict[str, Any] = {"value": [number]}
        if tool == "debug.sleep":
            arguments["seconds"] = 0.05
        tasks.append({"id": f"n{number}", "tool": tool, "with": arguments})
        tasks.append({"id": f"m{number}", "tool": "debug.echo", "with": {"value": f"${{tasks.n{number}}}"}})
    return tasks


def run_beside(client: Client, *bad: dict[str, Any]) -> dict[str, TaskEnd]:
    """Runs bad tasks among good ones, and checks the good ones; returns how the bad ones ended.

    A second job has good tasks only: it is none of its business at all.
    """
    good = neighbours()
    half = len(good) // 2
    document = {
        "name": "poisoned",
        "tasks": [*good[:half], *(each | {"on_failure": "skip"} for each in bad), *good[half:]],
    }
    job, other = client.submit_many([(document, {}), ({"name": "other", "tasks": good}, {})])
    ends: dict[str, TaskEnd] = {}
    for each in (job, other):
        assert each.wait(WAIT_S) is not None, client.view(each.job_id).summary()
        told = [end for news in each.progress() for end in news.ends]
        for end in told:
            if end.path[:1] in "nm":
                assert end.status == "succeeded", (end, [bad for bad in told if bad.path[:1] not in "nm"])
                assert end.attempt == 1
        assert len([end for end in told if end.path[:1] in "nm"]) == 2 * NEIGHBOURS
        ends.update((end.path, end) for end in told if end.path[:1] not in "nm")
    assert job.status == other.status == "succeeded"
    return ends


def error(end: TaskEnd, status: str = "failed") -> dict[str, Any]:
    assert end.status == status, end
    assert end.error is not None
    return end.error


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process"])
def test_tools_that_raise_fail_alone_with_their_own_traceback(client: Client, kind: str) -> None:
    ends = run_beside(
        client, *(task(f"bad{n}", f"raise_{kind}", {"what": what}) for n, (what, _, _) in enumerate(RAISES))
    )

    for number, (what, name, message) in enumerate(RAISES):
        told = error(ends[f"bad{number}"])
        expected = "RuntimeError" if (kind, what) == ("async", "StopIteration") else name
        assert told["type"].rpartition(".")[2] == expected
        assert message in told["message"]
        assert "toolbox.py" in told["traceback"]
        assert "/comagent/" not in told["traceback"]


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process"])
def test_tools_whose_result_cannot_be_stored_fail_alone(client: Client, kind: str) -> None:
    bad = [task(f"bad{n}", f"return_{kind}", {"what": what}) for n, (what, _) in enumerate(UNSTORABLE)]
    ends = run_beside(client, *bad)

    for number, (_, message) in enumerate(UNSTORABLE):
        told = error(ends[f"bad{number}"])
        assert told["type"] == "ValueNotStorableError"
        assert message in told["message"]


@pytest.mark.parametrize("kind", ["inline", "thread", "async", "process", "async_and_refuse_to_end"])
def test_a_tool_that_hangs_times_out_alone(client: Client, kind: str) -> None:
    function = f"hang_{kind}"
    told = error(run_beside(client, task("bad", function, timeout="1s"))["bad"], "timed_out")

    assert "timeout of 1 s" in told["message"]
    if kind != "process":
        assert f"in {function}" in told["traceback"]


def test_a_coroutine_that_blocks_its_event_loop_times_out_alone(client: Client) -> None:
    told = error(run_beside(client, task("bad", "block_loop", timeout="1s"))["bad"], "timed_out")

    assert "in block_loop" in told["traceback"]


def test_a_background_task_that_exits_harms_nobody(client: Client) -> None:
    ends = run_beside(client, *(task(f"bad{n}", "raise_in_background", {"what": "SystemExit"}) for n in range(3)))

    assert ends == {f"bad{n}": end for n in range(3) if (end := ends[f"bad{n}"]).status == "succeeded"}


@pytest.mark.parametrize("function", ["end_process", "end_process_inline", "end_process_async", "crash"])
def test_a_tool_that_ends_its_agent_fails_alone(client: Client, function: str) -> None:
    told = error(run_beside(client, task("bad", function))["bad"])

    assert told["type"] == "AgentDied"
    assert "its agent died while it ran the task alone" in told["message"]


def test_two_tools_that_end_their_agents_fail_alone(client: Client) -> None:
    ends = run_beside(client, task("bad0", "crash"), task("bad1", "end_process"))

    assert {error(end)["type"] for end in ends.values()} == {"AgentDied"}


@pytest.mark.parametrize(
    ("function", "message"), [("end_own_process", "exit code 7"), ("crash_own_process", "SIGSEGV")]
)
def test_a_tool_that_ends_its_own_process_fails_alone(client: Client, function: str, message: str) -> None:
    told = error(run_beside(client, task("bad", function))["bad"])

    assert told["type"] == "ProcessDied"
    assert message in told["message"]


@pytest.mark.parametrize("function", ["flood", "flood_in_process"])
def test_a_tool_that_floods_its_output_succeeds_and_fills_no_disk(client: Client, function: str) -> None:
    before = log_bytes()
    ends = run_beside(client, task("bad", function, {"megabytes": 200}))

    assert ends["bad"].status == "succeeded"
    assert log_bytes() - before < 50 << 20


def test_a_tool_that_closes_the_output_closes_it_for_nobody(client: Client) -> None:
    run_beside(client, *(task(f"bad{n}", "close_output") for n in range(4)))
    tasks = [task(f"t{n}", "speak", {"value": n}, cost="costly") for n in range(8)]

    assert client.submit({"name": "x", "tasks": tasks}).result(WAIT_S) == {f"t{n}": n for n in range(8)}


def log_bytes() -> int:
    """What all Ray sessions of this machine have written."""
    total = 0
    for folder, _, names in os.walk("/tmp/ray"):
        for name in names:
            path = Path(folder, name)
            if path.suffix in (".out", ".err", ".log") and path.exists():
                total += path.stat().st_size
    return total


@pytest.mark.parametrize("function", ["large_text", "large_list"])
def test_a_very_large_result_is_kept_and_read(client: Client, function: str) -> None:
    ends = run_beside(
        client,
        task("big", function, {"megabytes": 100}),
        task("read", "length", {"value": "${tasks.big}"}),
    )

    assert {end.status for end in ends.values()} == {"succeeded"}


def test_a_tool_that_takes_much_memory_harms_nobody(client: Client) -> None:
    ends = run_beside(client, *(task(f"bad{n}", "allocate", {"megabytes": 300}) for n in range(2)))

    assert {end.status for end in ends.values()} == {"succeeded"}


@pytest.mark.parametrize("function", ["fork", "fork_inline", "fork_in_process"])
def test_a_tool_that_forks_runs_once(client: Client, tmp_path: Path, function: str) -> None:
    mark = tmp_path / "mark"
    ends = run_beside(client, task("bad", function, {"mark": str(mark)}))

    assert ends["bad"].status == "succeeded"
    assert ends["bad"].attempt == 1
    until(gone([int(mark.read_text())]))


@pytest.mark.parametrize("function", ["change_folder", "change_folder_inline"])
def test_a_tool_that_leaves_the_working_folder_leaves_the_others_there(
    client: Client, tmp_path: Path, function: str
) -> None:
    run_beside(client, *(task(f"bad{n}", function, {"to": str(tmp_path)}) for n in range(4)))
    tasks = [task(f"t{n}", "folder", cost="costly") for n in range(8)]
    result = client.submit({"name": "folders", "tasks": tasks}).result(WAIT_S)

    assert set(result.values()) == {os.getcwd()}  # noqa: PTH109


def test_the_working_folder_may_be_removed(client: Client, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    job = client.submit({"name": "x", "tasks": [task(f"t{n}", "change_folder", {"to": str(folder)}) for n in range(4)]})
    job.result(WAIT_S)
    folder.rmdir()

    run_beside(client)


@pytest.mark.parametrize("function", ["start_thread", "start_thread_in_process"])
def test_threads_that_a_tool_leaves_hold_nothing_up(client: Client, function: str) -> None:
    assert run_beside(client, task("bad", function))["bad"].status == "succeeded"


def test_a_tool_that_reads_its_standard_input_finds_it_empty(client: Client) -> None:
    assert run_beside(client, task("bad", "read_input"))["bad"].status == "succeeded"


def test_a_module_that_cannot_be_imported_by_an_agent_fails_its_tasks(client: Client, tmp_path: Path) -> None:
    """It was there when the job was checked, and is broken by the time an agent looks."""
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text("def f() -> int:\n    return 1\n")
    file = tmp_path / "process.yaml"
    file.write_text("name: x\ntasks: [{id: a, tool: 'python:first.f'}, {id: b, tool: 'python:second.f'}]\n")
    prepared = client.prepare(file)
    (tmp_path / "first.py").write_text("raise SystemExit(1)\n")
    (tmp_path / "second.py").unlink()
    job = client.submit(prepared)
    with pytest.raises(comagent.JobFailedError):
        job.result(WAIT_S)
    ends = {end.path: end for news in job.progress() for end in news.ends}

    assert any(error(end)["type"] == "ToolDefinitionError" for end in ends.values() if end.status == "failed")
    assert run_beside(client) == {}


def test_nothing_piles_up_in_the_agents(client: Client) -> None:
    """After all this, agents have as many threads as a new one, or a few more, and answer."""
    tasks = [task(f"t{n}", "where_thread", cost="costly") for n in range(16)]
    result = client.submit({"name": "x", "tasks": tasks}).result(WAIT_S)

    for pid in {pid for pid, _ in result.values()}:
        assert psutil.Process(pid).num_fds() < 500
    assert isinstance(client.submit({"name": "x", "tasks": tasks}), Job)
