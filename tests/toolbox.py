"""Tools for tests: good ones of every kind, and bad ones of every sort. Processes name them by `named`."""

import asyncio
import ctypes
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from comagent.tools import ToolContext, tool


def named(function: str) -> str:
    """What a process calls a tool of this module."""
    return f"python:tests.toolbox.{function}"


# Good tools ----------------------------------------------------------------------------------------------------------


@tool(kind="inline", cost="cheap")
def double(value: int) -> int:
    return 2 * value


def add(left: int, right: int) -> int:
    return left + right


def append(value: list[int]) -> list[int]:
    """Changes what it is given."""
    value.append(2)
    return value


def quick(value: Any) -> Any:
    """Costs nothing, and does not say so."""
    return value


@tool(kind="process")
def add_in_process(left: int, right: int) -> int:
    return left + right


async def add_later(left: int, right: int) -> int:
    await asyncio.sleep(0)
    return left + right


@tool(kind="inline", cost="cheap")
def where_inline() -> list[int]:
    return [os.getpid(), threading.get_ident()]


def where_thread() -> list[int]:
    return [os.getpid(), threading.get_ident()]


async def where_async() -> list[int]:
    return [os.getpid(), threading.get_ident()]


@tool(kind="process")
def where_process() -> list[int]:
    return [os.getpid(), os.getppid()]


@tool(kind="inline", cost="cheap")
def context_inline(fail: int, context: ToolContext) -> dict[str, Any]:
    return _told(fail, context)


def context_thread(fail: int, context: ToolContext) -> dict[str, Any]:
    return _told(fail, context)


async def context_async(fail: int, context: ToolContext) -> dict[str, Any]:
    return _told(fail, context)


@tool(kind="process")
def context_process(fail: int, context: ToolContext) -> dict[str, Any]:
    return _told(fail, context)


def _told(fail: int, context: ToolContext) -> dict[str, Any]:
    """What the tool was told; in the first so many attempts as the text of an error."""
    told = {
        "job_id": context.job_id,
        "task": context.task,
        "attempt": context.attempt,
        "epoch": list(context.epoch),
        "key": context.idempotency_key,
        "deadline_ms": context.deadline_ms,
    }
    if context.attempt <= fail:
        raise ValueError(context.idempotency_key)
    return told


def meet(folder: str, count: int, patience_s: float = 20.0) -> int:
    """Waits until `count` calls are here at the same time; returns how many came."""
    Path(folder, f"{os.getpid()}-{threading.get_ident()}").touch()
    deadline = time.monotonic() + patience_s
    while len(list(Path(folder).iterdir())) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("the others have not come")
        time.sleep(0.005)
    return count


async def meet_later(folder: str, count: int, patience_s: float = 30.0) -> int:
    """`meet`, without a thread."""
    Path(folder, f"{os.getpid()}-{id(asyncio.current_task())}").touch()  # noqa: ASYNC240  # quick enough
    deadline = time.monotonic() + patience_s
    while sum(1 for _ in os.scandir(folder)) < count:
        if time.monotonic() > deadline:
            raise TimeoutError("the others have not come")
        await asyncio.sleep(1.0)
    return count


def folder() -> str:
    return os.getcwd()  # noqa: PTH109  # what a tool would write


# Tools that take long. Each says where it is by a file, so that nobody has to guess when it runs. --------------------


@tool(kind="inline", cost="cheap")
def hang_inline(mark: str = "") -> None:
    """Cheap, it says."""
    _mark(mark)
    threading.Event().wait()


def hang_thread(mark: str = "") -> None:
    _mark(mark)
    threading.Event().wait()


def hang_thread_of(mark: str) -> None:
    """The mark says in which process."""
    _mark(mark, str(os.getpid()))
    threading.Event().wait()


async def hang_async(mark: str = "") -> None:
    _mark(mark)
    await asyncio.Event().wait()


@tool(kind="process")
def hang_process(mark: str = "") -> None:
    _mark(mark)
    threading.Event().wait()


async def hang_async_and_refuse_to_end(mark: str = "") -> None:
    _mark(mark)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def block_loop(mark: str = "", seconds: float = 3600.0) -> None:
    """A coroutine that never awaits."""
    _mark(mark)
    time.sleep(seconds)  # noqa: ASYNC251  # that is the point


@tool(kind="process")
def hang_with_children(mark: str) -> None:
    """One child in the same process group, one in a session of its own; their pids are in the mark."""
    wait = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    children = [subprocess.Popen(wait), subprocess.Popen(wait, start_new_session=True)]
    _mark(mark, " ".join(str(pid) for pid in (os.getpid(), *(child.pid for child in children))))
    threading.Event().wait()


@tool(kind="process")
def leave_a_child() -> int:
    """Returns the pid of a child that would live on."""
    wait = [sys.executable, "-c", "import threading; threading.Event().wait()"]
    return subprocess.Popen(wait).pid


@tool(kind="inline", cost="cheap")
def slow_though_cheap(seconds: float, mark: str = "") -> str:
    """Cheap, it says."""
    _mark(mark)
    time.sleep(seconds)
    return "slow"


@tool(kind="inline", cost="cheap")
def wait_though_cheap(mark: str, until: str) -> str:
    """Cheap, it says, and waits for a file."""
    _mark(mark)
    while not Path(until).exists():
        time.sleep(0.01)
    return "slow"


def _mark(file: str, text: str = "") -> None:
    if file:
        new = Path(f"{file}.new")
        new.write_text(text)
        new.replace(file)


# Tools that raise ----------------------------------------------------------------------------------------------------


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise SystemExit("no text")


class UnpicklableError(Exception):
    def __init__(self) -> None:
        super().__init__("has a lock")
        self.lock = threading.Lock()

    def __reduce__(self) -> Any:
        raise TypeError("never")


class Base(BaseException):
    """Derives from BaseException alone."""


def _raise(what: str) -> None:
    match what:
        case "ValueError":
            raise ValueError("not a good value")
        case "BaseException":
            raise Base("from the bottom")
        case "SystemExit":
            raise SystemExit(3)
        case "KeyboardInterrupt":
            raise KeyboardInterrupt
        case "StopIteration":
            raise StopIteration(1)
        case "GeneratorExit":
            raise GeneratorExit
        case "CancelledError":
            raise asyncio.CancelledError
        case "UnprintableError":
            raise UnprintableError
        case "UnpicklableError":
            raise UnpicklableError
        case "MemoryError":
            bytearray(1 << 62)
        case "RecursionError":
            _raise_deep()
        case "surrogate":
            raise ValueError("text \ud800 that is not Unicode")
        case "long":
            raise ValueError("x" * 10_000_000)
        case "chained":
            try:
                int("key")
            except ValueError as error:
                raise LookupError("no such key") from error


def _raise_deep() -> None:
    _raise_deep()


RAISES = (
    ("ValueError", "ValueError", "not a good value"),
    ("BaseException", "Base", "from the bottom"),
    ("SystemExit", "SystemExit", "3"),
    ("KeyboardInterrupt", "KeyboardInterrupt", ""),
    ("StopIteration", "StopIteration", ""),
    ("GeneratorExit", "GeneratorExit", ""),
    ("CancelledError", "CancelledError", ""),
    ("UnprintableError", "UnprintableError", "has no text"),
    ("UnpicklableError", "UnpicklableError", "has a lock"),
    ("MemoryError", "MemoryError", ""),
    ("RecursionError", "RecursionError", "recursion"),
    ("surrogate", "ValueError", "\\ud800"),
    ("long", "ValueError", "xxx"),
    ("chained", "LookupError", "no such key"),
)
"""What the tools below raise: (their argument, the end of the error's type, a part of its message)."""


@tool(kind="inline", cost="cheap")
def raise_inline(what: str) -> None:
    _raise(what)


def raise_thread(what: str) -> None:
    _raise(what)


async def raise_async(what: str) -> None:
    _raise(what)


async def raise_in_background(what: str) -> str:
    """The task that raises is one which nobody awaits."""

    async def work() -> None:
        _raise(what)

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    return str(task.done())


@tool(kind="process")
def raise_process(what: str) -> None:
    _raise(what)


# Tools that return what they should not ------------------------------------------------------------------------------


def _make(what: str) -> Any:
    match what:
        case "nan":
            return float("nan")
        case "infinity in a list":
            return [1.0, float("inf")]
        case "set":
            return {1, 2}
        case "tuple keys":
            return {(1, 2): 3}
        case "mixed keys":
            return {1: 2, "a": 3}
        case "recursion":
            value: list[Any] = []
            value.append(value)
            return value
        case "deep":
            value = []
            for _ in range(100_000):
                value = [value]
            return value
        case "surrogate":
            return "\ud800"
        case "surrogate key":
            return {"\ud800": 1}
        case "bytes":
            return b"bytes"
        case "object":
            return object()
        case "huge integer":
            return 10**5000
    return None


UNSTORABLE = (
    ("nan", "NaN"),
    ("infinity in a list", "infinity"),
    ("set", "a set"),
    ("tuple keys", "not all text"),
    ("mixed keys", "not all text"),
    ("recursion", "contains itself"),
    ("deep", "nested deeper"),
    ("surrogate", "surrogate"),
    ("surrogate key", "surrogate"),
    ("bytes", "a bytes"),
    ("object", "a object"),
    ("huge integer", "digits"),
)
"""What the tools below return: (their argument, a part of the error's message)."""


@tool(kind="inline", cost="cheap")
def return_inline(what: str) -> Any:
    return _make(what)


def return_thread(what: str) -> Any:
    return _make(what)


async def return_async(what: str) -> Any:
    return _make(what)


@tool(kind="process")
def return_process(what: str) -> Any:
    return _make(what)


def large_text(megabytes: int) -> str:
    return "x" * (megabytes << 20)


def large_list(megabytes: int) -> list[str]:
    return ["x" * 1023] * (megabytes << 10)


def length(value: Any) -> int:
    return len(value)


@tool(kind="process")
def length_in_process(value: Any) -> int:
    return len(value)


# Tools that harm their process ---------------------------------------------------------------------------------------


def end_process(code: int = 7) -> None:
    os._exit(code)


@tool(kind="inline", cost="cheap")
def end_process_inline(code: int = 7) -> None:
    os._exit(code)


async def end_process_async(code: int = 7) -> None:
    os._exit(code)


@tool(kind="process")
def end_own_process(code: int = 7) -> None:
    os._exit(code)


def crash() -> None:
    ctypes.string_at(0)


@tool(kind="process")
def crash_own_process() -> None:
    ctypes.string_at(0)


def flood(megabytes: int) -> str:
    line = "x" * 1023
    for _ in range(megabytes << 10):
        print(line)  # noqa: T201  # that is the point
    return "flooded"


@tool(kind="process")
def flood_in_process(megabytes: int) -> str:
    line = "x" * 1023
    for _ in range(megabytes << 10):
        print(line)  # noqa: T201  # that is the point
        print(line, file=sys.stderr)  # noqa: T201
    return "flooded"


def close_output() -> str:
    sys.stdout.close()
    sys.stderr.close()
    return "closed"


def speak(value: Any) -> Any:
    print(value)  # noqa: T201  # as tools do
    return value


def allocate(megabytes: int) -> int:
    return len(bytearray(megabytes << 20)) >> 20


def fork(mark: str) -> str:
    """Returns twice: in this process, and in a copy of it, whose pid is in the mark."""
    pid = os.fork()
    if pid:
        _mark(mark, str(pid))
    return "parent" if pid else "copy"


@tool(kind="inline", cost="cheap")
def fork_inline(mark: str) -> str:
    return fork(mark)


@tool(kind="process")
def fork_in_process(mark: str) -> str:
    return fork(mark)


@tool(kind="process")
def end_process_but_leave_a_copy(mark: str) -> None:
    """The copy keeps all pipes open."""
    pid = os.fork()
    if pid:
        _mark(mark, str(pid))
        os._exit(5)
    threading.Event().wait()


def change_folder(to: str) -> str:
    os.chdir(to)
    return os.getcwd()  # noqa: PTH109  # what a tool would write


@tool(kind="inline", cost="cheap")
def change_folder_inline(to: str) -> str:
    return change_folder(to)


def start_thread() -> str:
    """One that would keep Python from ending."""
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return "started"


@tool(kind="process")
def start_thread_in_process() -> str:
    threading.Thread(target=threading.Event().wait, daemon=False).start()
    return "started"


@tool(kind="process")
def read_input() -> str:
    return sys.stdin.read()
