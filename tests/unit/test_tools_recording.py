"""Calls of declared tools: carried out, or noted down where a process is written."""

import functools
import inspect
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from comagent.tools import Tool, tool
from comagent.tools.recording import as_written, recording

ROOT = Path(__file__).parents[2]


@tool(cost="cheap")
def add(left: int, right: int = 1) -> int:
    """The sum."""
    return left + right


@tool
async def later(value: int) -> int:
    return value


def twice(function: Callable[..., int]) -> Callable[..., int]:
    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> int:
        return 2 * function(*args, **kwargs)

    return call


@twice
@tool
def one() -> int:
    return 1


def test_a_declared_function_is_called_as_before() -> None:
    assert (add(1), add(1, right=2)) == (2, 3)
    assert (add.__name__, add.__doc__, list(inspect.signature(add).parameters)) == (
        "add",
        "The sum.",
        ["left", "right"],
    )


def test_a_tool_runs_what_was_written_without_a_detour() -> None:
    made = Tool(add)
    assert made.call({"left": 1}, None) == 2
    assert as_written(add) is not add
    assert as_written(as_written(add)) is as_written(add)


def test_a_coroutine_function_is_still_one_of_kind_async() -> None:
    assert Tool(later).spec.kind == "async"


def test_a_decorator_on_top_is_not_left_out() -> None:
    assert one() == 2
    assert Tool(one).call({}, None) == 2


def test_calls_are_noted_down_within_recording_only() -> None:
    noted: list[tuple[Any, ...]] = []

    def record(*call: Any) -> str:
        noted.append(call)
        return "noted"

    with recording(record):
        assert add(1, right=2) == "noted"  # type: ignore[comparison-overlap]  # what the recorder gives
        with recording(None):
            assert add(1) == 2
    assert add(1) == 2
    assert noted == [(add, (1,), {"right": 2})]


def test_main_is_the_program_that_runs_whatever_files_there_are(tmp_path: Path) -> None:
    (tmp_path / "__main__.py").write_text("def f(): ...")
    (tmp_path / "driver.py").write_text(
        "from comagent.tools.registry import resolve\n"
        "def f(a: int): ...\n"
        "print(resolve('python:__main__.f').code.module)\n"
    )
    done = subprocess.run(
        [sys.executable, "driver.py"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(done.stdout.strip()) == (tmp_path / "driver.py").resolve()
