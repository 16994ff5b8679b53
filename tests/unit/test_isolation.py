"""Tools in a process of their own: the answer, or what happened to the process; and nothing of it stays behind."""

import asyncio
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from comagent.calls import Ended
from comagent.isolation import ProcessCall
from comagent.tools import ToolContext
from comagent.tools.registry import resolve
from tests.toolbox import RAISES, UNSTORABLE, named
from tests.waiting import gone, runs, until_async, written

pytestmark = pytest.mark.asyncio(loop_factories=["asyncio", "uvloop"])

CONTEXT = ToolContext("job", "task", 2, (1, 7), "job/task", None)


def begin(function: str, **arguments: Any) -> ProcessCall:
    return ProcessCall(resolve(named(function)).code, arguments, CONTEXT)


async def ended(function: str, **arguments: Any) -> Ended:
    call = begin(function, **arguments)
    end = await call.ended
    await asyncio.sleep(0)
    assert not call.goes_on
    return end


async def value(function: str, **arguments: Any) -> Any:
    end = await ended(function, **arguments)
    assert end.data is not None, end.error
    return json.loads(end.data)


async def error(function: str, **arguments: Any) -> dict[str, str]:
    end = await ended(function, **arguments)
    assert end.error is not None, end.data
    told: dict[str, str] = json.loads(end.error)
    return told


async def marked(mark: Path) -> str:
    """What the tool wrote there, once it has."""
    await until_async(written(mark))
    return mark.read_text()  # noqa: ASYNC240  # a few bytes


async def until_gone(pids: list[int]) -> None:
    await until_async(gone(pids))


async def test_a_tool_runs_in_a_process_of_its_own_that_is_gone_afterwards() -> None:
    pid, parent = await value("where_process")

    assert parent == os.getpid() != pid
    await until_gone([pid])


async def test_it_gets_its_arguments_and_its_context() -> None:
    assert await value("add_in_process", left=2, right=3) == 5
    assert await value("context_process", fail=0) == {
        "job_id": "job",
        "task": "task",
        "attempt": 2,
        "epoch": [1, 7],
        "key": "job/task",
        "deadline_ms": None,
    }


@pytest.mark.parametrize(("what", "kind", "message"), RAISES)
async def test_whatever_it_raises_comes_back_with_its_traceback(what: str, kind: str, message: str) -> None:
    told = await error("raise_process", what=what)

    assert told["type"].rpartition(".")[2] == kind
    assert message in told["message"]
    assert "comagent" not in told["traceback"]
    assert len(told["message"]) < 3000
    assert len(told["traceback"]) <= 8000


@pytest.mark.parametrize(("what", "message"), UNSTORABLE)
async def test_what_cannot_be_stored_is_refused_in_the_process(what: str, message: str) -> None:
    told = await error("return_process", what=what)

    assert told["type"] == "ValueNotStorableError"
    assert message in told["message"]


async def test_a_large_value_comes_back_whole() -> None:
    text = await value("large_text", megabytes=5)

    assert text == "x" * (5 << 20)


async def test_a_process_that_ends_itself_is_named_with_its_exit_code() -> None:
    told = await error("end_own_process", code=7)

    assert told["type"] == "ProcessDied"
    assert "ended with exit code 7 before it returned a result" in told["message"]


async def test_a_crash_is_told_with_its_signal_and_where_it_was() -> None:
    told = await error("crash_own_process")

    assert told["type"] == "ProcessDied"
    assert "SIGSEGV" in told["message"]
    assert "in crash_own_process" in told["traceback"]


async def test_a_tool_that_cannot_be_loaded_fails_with_the_reason() -> None:
    code = resolve(named("add_in_process")).code
    end = await ProcessCall(code._replace(source_hash="other"), {}, CONTEXT).ended

    assert end.error is not None
    assert json.loads(end.error)["type"] == "ToolDefinitionError"


async def test_what_it_prints_gets_in_nobodys_way() -> None:
    assert await value("flood_in_process", megabytes=20) == "flooded"


async def test_its_standard_input_is_empty() -> None:
    assert await value("read_input") == ""


async def test_threads_that_it_leaves_do_not_hold_it_up() -> None:
    assert await value("start_thread_in_process") == "started"


async def test_children_that_it_leaves_end_with_it() -> None:
    await until_gone([await value("leave_a_child")])


async def test_a_tool_that_forks_answers_once(tmp_path: Path) -> None:
    mark = tmp_path / "mark"

    assert await value("fork_in_process", mark=str(mark)) == "parent"
    await until_gone([int(mark.read_text())])


async def test_a_copy_that_keeps_the_pipes_open_does_not_hide_the_death(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    told = await error("end_process_but_leave_a_copy", mark=str(mark))

    assert "exit code 5" in told["message"]
    await until_gone([int(mark.read_text())])


async def test_stopping_ends_the_process_and_all_its_children_also_those_with_a_session_of_their_own(
    tmp_path: Path,
) -> None:
    mark = tmp_path / "mark"
    call = begin("hang_with_children", mark=str(mark))
    pids = [int(pid) for pid in (await marked(mark)).split()]
    assert all(runs(pid) for pid in pids)

    await call.stop()

    assert not call.goes_on
    await until_gone(pids)


async def test_a_call_can_be_stopped_before_its_process_has_begun() -> None:
    call = begin("hang_process")
    await call.stop()

    assert not call.goes_on


async def test_a_file_in_the_working_folder_does_not_stand_in_for_a_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = resolve("debug.echo").code
    (tmp_path / "json.py").write_text("raise SystemExit('not the one')")
    (tmp_path / "comagent.py").write_text("raise SystemExit('not the one')")
    monkeypatch.chdir(tmp_path)

    end = await ProcessCall(code, {"value": 1}, CONTEXT).ended

    assert end == Ended(b"1", None)


async def test_no_file_descriptor_stays_open() -> None:
    await value("add_in_process", left=1, right=1)
    before = psutil.Process().num_fds()
    for _ in range(3):
        await value("add_in_process", left=1, right=1)
        await error("end_own_process", code=1)
        await begin("hang_process").stop()

    assert psutil.Process().num_fds() <= before


async def test_all_ends_when_the_parent_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    script = """
import asyncio, sys
from comagent.isolation import ProcessCall
from comagent.tools import ToolContext
from comagent.tools.registry import resolve

async def main():
    code = resolve("python:tests.toolbox.hang_with_children").code
    await ProcessCall(code, {"mark": sys.argv[1]}, ToolContext("j", "t", 1, (0, 0), "k")).ended

asyncio.run(main())
"""
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(mark))
    tool, child, other_session = [int(pid) for pid in (await marked(mark)).split()]
    try:
        parent.kill()
        await parent.wait()
        await until_gone([tool, child])
    finally:
        os.kill(other_session, signal.SIGKILL)


async def test_calls_run_at_the_same_time() -> None:
    began = time.monotonic()
    calls = [begin("where_process") for _ in range(2)]
    ends = [await call.ended for call in calls]

    assert all(end.data is not None for end in ends)
    assert time.monotonic() - began < 60
