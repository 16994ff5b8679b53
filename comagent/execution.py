"""Runs units of tasks inside one process: what an agent does, without what makes it an actor.

Cheap tasks run one after the other in one thread (`_BatchLane`). The others run one by one: coroutines in the event
loop, blocking tools in threads of their own, and tools that must be stoppable in a process of their own.
"""

import asyncio
import contextlib
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping
from pathlib import Path
from typing import Any

from comagent.errors import ComAgentError
from comagent.expressions import evaluate_condition, resolve
from comagent.isolation import ProcessCall, ProcessDied
from comagent.protocol import BATCH, INLINE_BYTES, Epoch, Large, Report, Row, Running, Unit, Wire
from comagent.states import Task
from comagent.steps import RESULT_TOOL, Step, decode_step
from comagent.store.documents import Documents
from comagent.tools.base import Tool, ToolContext
from comagent.tools.loading import load
from comagent.tools.source import Code
from comagent.values import JSON, SCALARS, decode, encode

SLOW_TASK_S = 0.05
"""A task in a batch that takes longer holds up the others: they are handed back."""
SLOW_UNIT_S = 0.1
"""A batch that takes longer hands its rest back, so that others may share it."""
TRACEBACK_CHARS = 8_000
MESSAGE_CHARS = 2_000

SUCCEEDED, FAILED, SKIPPED = int(Task.SUCCEEDED), int(Task.FAILED), int(Task.SKIPPED)
CANCELLED, TIMED_OUT = int(Task.CANCELLED), int(Task.TIMED_OUT)

NOTHING: Mapping[str, Any] = {}


class Values(Mapping[str, Any]):
    """Values of tasks by path, decoded when they are read, so that each reader has a copy of its own.

    A task without a value (it failed, was skipped, or has not ended) reads as null.
    """

    __slots__ = ("_scalars", "_wires")

    def __init__(self, wires: Mapping[str, bytes]):
        self._wires = dict(wires)
        self._scalars: dict[str, Any] = {}

    def __getitem__(self, path: str) -> Any:
        try:
            return self._scalars[path]
        except KeyError:
            wire = self._wires.get(path)
        value = None if wire is None else decode(wire)
        if type(value) in SCALARS:
            self._scalars[path] = value
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._wires)

    def __len__(self) -> int:
        return len(self._wires)

    def add(self, path: str, wire: bytes, value: Any) -> None:
        if type(value) in SCALARS:
            self._scalars[path] = value
        self._wires[path] = wire


class Hand:
    """A unit that is being run, and which of its parts nobody has begun."""

    def __init__(self, unit: Unit, scope: dict[str, Any]):
        self.unit = unit
        self.scope = scope
        self.todo = deque(range(len(unit.parts)))
        """Positions not begun. Whoever pops one owns it: `deque` makes that atomic between threads."""
        self.rows: list[Row] = []
        self.begun = -1
        self.task_since = 0.0
        self.since = 0.0
        self.stop: Callable[[], None] | None = None
        self.tools: dict[int, Tool] = {}

    def give_back(self, keep: int = 0) -> list[int]:
        """Takes back what has not begun, from the end down to position `keep`; returns task indices."""
        back = []
        while self.todo and self.todo[-1] >= keep:
            try:
                back.append(self.todo.pop())
            except IndexError:
                break
        return [self.unit.parts[position][0] for position in reversed(back)]


class Executor:
    """Runs units and reports what became of them.

    All methods belong to the event loop in which it was made. `report(report, tainted)` is called there; `tainted`
    says that a thread is stuck and this process should be replaced.
    """

    def __init__(self, documents: Documents, report: Callable[[Report, bool], None]):
        self._documents = documents
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._hands: dict[tuple[int, int, int], Hand] = {}
        self._batch = _BatchLane(self)
        self._jobs: set[asyncio.Task[None]] = set()
        self._watch: asyncio.TimerHandle | None = None
        self.epoch: Epoch = (0, 0)

    def start(self, unit: Unit, fetched: Mapping[str, bytes]) -> None:
        """Begins a unit. `fetched` holds the values that are no literals: documents and what object refs brought."""
        wires = {path: wire for path, wire in unit.literals.items() if isinstance(wire, bytes)}
        wires.update(fetched)
        inputs = decode(unit.inputs) if isinstance(unit.inputs, bytes) else decode(fetched["/inputs"])
        scope = {
            "inputs": inputs,
            "tasks": Values(wires),
            "status": {path: end[0] for path, end in unit.ends.items()} if unit.ends else NOTHING,
            "errors": {path: decode(end[1]) if end[1] else None for path, end in unit.ends.items()}
            if unit.ends
            else NOTHING,
        }
        hand = Hand(unit, scope)
        self._hands[unit.dispatch] = hand
        if unit.lane == BATCH:
            self._batch.put(hand)
            if self._watch is None:
                self._watch = self._loop.call_later(SLOW_TASK_S, self._look)
        else:
            task = self._loop.create_task(self._single(hand))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)

    def cancel(self, job_id: str) -> None:
        """Stops everything of a job: what has not begun is handed back, what runs is stopped if it can be."""
        for hand in list(self._hands.values()):
            if hand.unit.job_id == job_id:
                self._hand_back(hand, "cancelled")
                if hand.stop is not None:
                    hand.stop()

    def fence(self, epoch: Epoch) -> list[Running]:
        """Drops everything that has not begun, and lists what has: that will be reported under `epoch`."""
        self.epoch = epoch
        running = []
        for hand in list(self._hands.values()):
            hand.give_back()
            begun = [(row[0], row[1]) for row in hand.rows]
            if 0 <= hand.begun < len(hand.unit.parts):
                current = hand.unit.parts[hand.begun][:2]
                if current not in begun:
                    begun.append(current)
            if begun:
                running.append(Running(hand.unit.dispatch, hand.unit.job_id, begun, hand.unit.lane))
        return running

    def _look(self) -> None:
        """Hands back what waits behind a slow task."""
        self._watch = None
        now = time.monotonic()
        hand = self._batch.current
        if hand is not None and hand.begun >= 0:
            if now - hand.task_since > SLOW_TASK_S:
                for waiting in [h for h in self._hands.values() if h.unit.lane == BATCH]:
                    self._hand_back(waiting, "slow")
            elif now - hand.since > SLOW_UNIT_S:
                self._hand_back(hand, "slow")
        if any(h.unit.lane == BATCH for h in self._hands.values()):
            self._watch = self._loop.call_later(SLOW_TASK_S, self._look)

    def _hand_back(self, hand: Hand, reason: str) -> None:
        back = hand.give_back()
        if not back:
            return
        if hand.begun < 0 and len(back) == len(hand.unit.parts):
            del self._hands[hand.unit.dispatch]
        self._report(Report(hand.unit.dispatch, hand.unit.job_id, [], back, reason), False)

    def finished(self, hand: Hand, not_run: list[int], *, tainted: bool = False) -> None:
        """A unit is over, but for what was handed back before."""
        if self._hands.pop(hand.unit.dispatch, None) is None:
            return
        if hand.rows or not_run:
            reason = "upstream" if not_run else None
            self._report(Report(hand.unit.dispatch, hand.unit.job_id, hand.rows, not_run, reason), tainted)

    def tool(self, hand: Hand, step: Step) -> Tool:
        name, _, code = hand.unit.tools[step.tool]
        try:
            tool = hand.tools[step.tool] = load(Code(*code))
            return tool
        except ComAgentError:
            raise
        except Exception as error:
            raise RuntimeError(f"tool {name} cannot be loaded: {error}") from error

    def run_part(self, hand: Hand, position: int) -> tuple[Row, Any]:
        """Runs one cheap task where it is called; returns its row and, if it succeeded, its value."""
        index, attempt, path, blob = hand.unit.parts[position]
        started = time.time() * 1000
        try:
            step = decode_step(blob)
            if step.when is not None and not evaluate_condition(step.when, hand.scope):
                return (index, attempt, SKIPPED, started, started, CONDITION_FALSE), None  # type: ignore[return-value]
            arguments = resolve(step.arguments, hand.scope)
            if step.tool == RESULT_TOOL:
                value, name = arguments, "outputs"
            else:
                tool = hand.tools.get(step.tool) or self.tool(hand, step)
                name = tool.spec.name
                context = self._context(hand, index, attempt, path, step) if tool.wants_context else None
                value = tool.call(arguments, context)
            wire = self._wire(value, name)
        except BaseException as error:  # a tool may raise anything, SystemExit included
            return (index, attempt, FAILED, started, time.time() * 1000, error_payload(error)), None  # type: ignore[return-value]
        return (index, attempt, SUCCEEDED, started, time.time() * 1000, wire), value  # type: ignore[return-value]

    def _context(self, hand: Hand, index: int, attempt: int, path: str, step: Step) -> ToolContext:
        job_id = hand.unit.job_id
        deadline = None if step.timeout_s is None else int((time.time() + step.timeout_s) * 1000)
        return ToolContext(job_id, path, attempt, self.epoch, f"{job_id}/{path}", deadline)

    def _wire(self, value: Any, tool: str) -> Wire:
        data = encode(value, tool=tool)
        if len(data) <= INLINE_BYTES:
            return data
        hash, size = self._documents.put(data, JSON)
        return Large(hash, size, JSON)

    async def _single(self, hand: Hand) -> None:
        """Runs a unit of one task."""
        try:
            hand.todo.popleft()
        except IndexError:
            return
        index, attempt, path, blob = hand.unit.parts[0]
        hand.begun = 0
        started = time.time() * 1000
        tainted = False
        status: int = FAILED
        payload: Wire | None
        try:
            step = decode_step(blob)
            if step.when is not None and not evaluate_condition(step.when, hand.scope):
                status, payload = SKIPPED, CONDITION_FALSE
            else:
                tool = self.tool(hand, step)
                arguments = resolve(step.arguments, hand.scope)
                context = self._context(hand, index, attempt, path, step)
                stoppable = hand.unit.tools[step.tool][1] in ("async", "process")
                value = await self._stopped_in_time(hand, self._call(tool, arguments, context), step.timeout_s)
                payload = await self._wire_of(value, tool.spec.name)
                status = SUCCEEDED
        except _Stopped as stopped:
            status, payload = stopped.status, error_payload(stopped)
            tainted = not stoppable
        except BaseException as error:
            payload = error_payload(error)
        hand.rows.append((index, attempt, status, started, time.time() * 1000, payload))  # type: ignore[arg-type]
        self.finished(hand, [], tainted=tainted)

    async def _wire_of(self, value: Any, name: str) -> Wire:
        if type(value) in SCALARS and not isinstance(value, str):
            return encode(value, tool=name)
        if isinstance(value, str) and len(value) < 1024:
            return encode(value, tool=name)
        return await _in_thread(lambda: self._wire(value, name))

    def _call(self, tool: Tool, arguments: dict[str, Any], context: ToolContext) -> Coroutine[Any, Any, Any]:
        match tool.spec.kind:
            case "async":
                return _awaited(tool, arguments, context)
            case "process":
                return ProcessCall(tool.spec.code, arguments, context).run()
            case _:
                return _in_thread(lambda: tool.call(arguments, context))

    async def _stopped_in_time(self, hand: Hand, call: Coroutine[Any, Any, Any], timeout_s: float | None) -> Any:
        """The result of a call, unless it is cancelled or runs out of time first. Its thread, if it has one, goes on."""
        task = self._loop.create_task(call)
        cancelled = self._loop.create_future()

        def stop() -> None:
            if not cancelled.done():
                cancelled.set_result(None)

        hand.stop = stop
        done, _ = await asyncio.wait({task, cancelled}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if task in done:
            return task.result()
        task.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.wait({task}, timeout=1.0)
        if cancelled in done:
            raise _Stopped(CANCELLED, "the job was cancelled while the attempt ran")
        raise _Stopped(TIMED_OUT, f"the attempt took longer than its timeout of {timeout_s:g} s")


class _Stopped(Exception):
    """An attempt was given up."""

    def __init__(self, status: int, message: str):
        super().__init__(status, message)
        self.status = status
        self.message = message

    def __str__(self) -> str:
        return self.message


class _BatchLane:
    """The thread that runs cheap tasks: one hop between threads for a whole unit."""

    def __init__(self, executor: Executor):
        self._executor = executor
        self._queue: deque[Hand] = deque()
        self._wake = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self.current: Hand | None = None

    def put(self, hand: Hand) -> None:
        self._queue.append(hand)
        self._wake.release()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        executor = self._executor
        while True:
            self._wake.acquire()
            hand = self._queue.popleft()
            not_run = self._run_unit(hand)
            self.current = None
            executor._loop.call_soon_threadsafe(executor.finished, hand, not_run)

    def _run_unit(self, hand: Hand) -> list[int]:
        """Runs the parts that nobody takes back; returns what must not run, because something before it failed."""
        unit, todo, rows = hand.unit, hand.todo, hand.rows
        run_part, values = self._executor.run_part, hand.scope["tasks"]
        not_run: list[int] = []
        hand.since = hand.task_since = time.monotonic()
        self.current = hand
        while True:
            try:
                position = todo.popleft()
            except IndexError:
                return not_run
            hand.begun = position
            hand.task_since = time.monotonic()
            row, value = run_part(hand, position)
            rows.append(row)
            if row[2] != SUCCEEDED:
                not_run += hand.give_back(unit.seeds)
            elif isinstance(row[5], bytes):
                values.add(unit.parts[position][2], row[5], value)
            else:
                values.add(unit.parts[position][2], encode(value, tool=""), value)


async def _awaited(tool: Tool, arguments: dict[str, Any], context: ToolContext) -> Any:
    return await tool.call(arguments, context)


async def _in_thread(call: Callable[[], Any]) -> Any:
    """Runs `call` in a thread of its own: a stuck one then takes nothing from the others."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Any] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if not future.done():
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error if not isinstance(error, StopIteration) else RuntimeError(repr(error)))

    def run() -> None:
        try:
            result, error = call(), None
        except BaseException as caught:  # a tool may raise anything, SystemExit included
            result, error = None, caught
        with contextlib.suppress(RuntimeError):  # the loop may be closed by the time a stuck tool returns
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, daemon=True, name="tool").start()
    return await future


def error_payload(error: BaseException) -> bytes:
    """What is kept of an exception: type, message, and the tool's own traceback."""
    if isinstance(error, _Stopped):
        kind = "TimeoutError" if error.status == TIMED_OUT else "Cancelled"
        return encode({"type": kind, "message": error.message}, tool="")
    if isinstance(error, ProcessDied):
        return encode({"type": error.kind, "message": _cut(str(error)), "traceback": error.trace[-TRACEBACK_CHARS:]}, tool="")
    module = type(error).__module__
    kind = type(error).__qualname__ if module in ("builtins", "comagent.errors") else f"{module}.{type(error).__qualname__}"
    body = {"type": kind, "message": _cut(_message(error))}
    if not isinstance(error, ComAgentError):
        body["traceback"] = _own_traceback(error)
    return encode(body, tool="")


def _message(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "backslashreplace").decode()
    except Exception as broken:
        return f"(its text cannot be made: {type(broken).__name__})"


def _cut(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS else f"{text[:MESSAGE_CHARS]}… ({len(text)} characters)"


def _own_traceback(error: BaseException) -> str:
    """The traceback without the frames of this package that led to the tool."""
    frames = traceback.extract_tb(error.__traceback__)
    here = str(Path(__file__).parent)
    own = [frame for number, frame in enumerate(frames) if not all(f.filename.startswith(here) for f in frames[: number + 1])]
    lines = traceback.format_list(own) if own else []
    text = "".join(["Traceback (most recent call last):\n", *lines, f"{type(error).__name__}: {_message(error)}"])
    return text.encode("utf-8", "backslashreplace").decode()[-TRACEBACK_CHARS:]


CONDITION_FALSE = encode({"type": "ConditionFalse", "message": "skipped, because its condition is false"}, tool="")
