"""Runs units of tasks inside one process: what an agent does, without what makes it an actor.

Cheap tasks run one after the other in one thread (`_BatchLane`). The others run one by one: coroutines in an event loop
for them alone, blocking tools in threads of their own, and tools that must be stoppable in a process of their own.
"""

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from comagent.calls import PROBE_S, Call, CoroutineCall, CoroutineThread, ThreadCall, frames_of
from comagent.expressions import evaluate_condition, resolve
from comagent.failure import failure, stack, told
from comagent.isolation import ProcessCall
from comagent.protocol import BATCH, INLINE_BYTES, DispatchId, Epoch, Large, Report, Row, Running, Unit, Wire
from comagent.scope import scope_of_unit, scope_within
from comagent.states import Task
from comagent.steps import RESULT_TOOL, Step, decode_step
from comagent.store.documents import Documents
from comagent.tools.base import Tool, ToolContext
from comagent.tools.loading import load
from comagent.tools.source import Code
from comagent.values import JSON, encode

SLOW_TASK_S = 0.05
"""A task in a batch that takes longer holds up the others: they are handed back."""
SLOW_UNIT_S = 0.1
"""A batch that takes longer hands its rest back, so that others may share it."""

SUCCEEDED, FAILED, SKIPPED = int(Task.SUCCEEDED), int(Task.FAILED), int(Task.SKIPPED)
CANCELLED, TIMED_OUT = int(Task.CANCELLED), int(Task.TIMED_OUT)

CONDITION_FALSE = told("ConditionFalse", "skipped, because its condition is false")


class Hand:
    """A unit that is being run, and which of its parts nobody has begun."""

    def __init__(self, unit: Unit, scope: dict[str, Any]):
        self.unit = unit
        self.scope = scope
        self.todo = deque(range(len(unit.parts)))
        """Positions not begun. Whoever pops one owns it: `deque` makes that atomic between threads."""
        self.given_back: set[int] = set()
        """Positions that will not be begun."""
        self.rows: list[Row] = []
        self.told = 0
        """How many of `rows` were reported."""
        self.begun = -1
        self.task_since = 0.0
        self.since = 0.0
        self.stop: Callable[[], None] | None = None
        self.cancelled = False
        self.span: tuple[float, float] | None = None
        """When a blocking tool began and ended in its thread: what a busy process adds is not the tool's cost."""
        self.tools: dict[int, Tool] = {}
        self._scopes: dict[str, dict[str, Any]] = {"": scope}
        self._giving = threading.Lock()

    def scope_of(self, step: Step) -> dict[str, Any]:
        """What the expressions of a step can see: all of the process, or of the sub-process that it belongs to."""
        scope = self._scopes.get(step.prefix)
        if scope is None:
            scope = self._scopes[step.prefix] = scope_within(self.scope, step.prefix)
        return scope

    def give_back(self, keep: int = 0) -> list[int]:
        """Takes back what has not begun, from the end down to position `keep`; returns task indices."""
        back: list[int] = []
        with self._giving, contextlib.suppress(IndexError):
            while self.todo[-1] >= keep:
                back.append(self.todo.pop())
        self.given_back.update(back)
        return [self.unit.parts[position][0] for position in reversed(back)]

    def leave_out(self, positions: Collection[int]) -> list[int]:
        """Gives back these parts, and what may depend on them, before anything is begun; returns task indices."""
        if not positions:
            return []
        left_out = {*positions, *range(self.unit.seeds, len(self.unit.parts))}
        self.todo = deque(position for position in self.todo if position not in left_out)
        self.given_back = left_out
        return [self.unit.parts[position][0] for position in sorted(left_out)]

    def news(self) -> list[Row]:
        """Rows that were not reported yet."""
        news = self.rows[self.told :]
        self.told += len(news)
        return news


class Executor:
    """Runs units and reports what became of them.

    All methods belong to the event loop in which it was made. `report(report, tainted)` is called there; `tainted`
    says that something is stuck that cannot be stopped, and this process should be replaced.
    """

    def __init__(
        self,
        documents: Documents,
        report: Callable[[Report, bool], None],
        *,
        publish: Callable[[bytes], Any] = lambda data: None,
    ):
        self._documents = documents
        self._publish = publish
        """Makes a large value available to other agents of the cluster by a ref, which travels with its name."""
        self._report = report
        self._loop = asyncio.get_running_loop()
        self._folder = Path.cwd()
        self._hands: dict[DispatchId, Hand] = {}
        self._batch = _BatchLane(self)
        self._coroutines: CoroutineThread | None = None
        self._tools: dict[Code, Tool] = {}
        self._loading = threading.Lock()
        self._jobs: set[asyncio.Task[None]] = set()
        self._slow_watch: asyncio.TimerHandle | None = None
        self._block_watch: asyncio.TimerHandle | None = None
        self.epoch: Epoch = (0, 0)

    def start(self, unit: Unit, fetched: Mapping[str, bytes], *, missing: Collection[int] = ()) -> None:
        """Begins a unit. `fetched` holds the values that are no literals: documents and what object refs brought.

        Parts at the positions `missing` lack a value that should have come, and are handed back.
        """
        try:
            hand = Hand(unit, scope_of_unit(unit, fetched))
        except Exception as error:  # noqa: BLE001  # whatever is wrong with the data, the machine is told
            back = [part[0] for part in unit.parts]
            reason = f"what the unit reads cannot be decoded: {type(error).__name__}: {error}"
            self._report(Report(unit.dispatch, unit.job_id, [], back, reason), False)
            return
        self._hands[unit.dispatch] = hand
        left_out = hand.leave_out(missing)
        if not hand.todo:
            self.finished(hand, left_out)
            return
        if left_out:
            self._report(Report(unit.dispatch, unit.job_id, [], left_out, "upstream"), False)
        if unit.lane == BATCH:
            self._batch.put(hand)
            if self._slow_watch is None:
                self._slow_watch = self._loop.call_later(SLOW_TASK_S, self._look)
        else:
            task = self._loop.create_task(self._single(hand))
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)

    def has(self, dispatch: DispatchId) -> bool:
        """Whether there will be more reports of a dispatch."""
        return dispatch in self._hands

    def cancel(self, job_id: str) -> None:
        """Stops everything of a job: what has not begun is handed back, what runs is stopped if it can be."""
        for hand in list(self._hands.values()):
            if hand.unit.job_id == job_id:
                hand.cancelled = True
                self._hand_back(hand, "cancelled")
                if hand.stop is not None:
                    hand.stop()

    def fence(self, epoch: Epoch) -> list[Running]:
        """Drops everything that has not begun, and lists what has: that will be reported under `epoch`.

        What was reported before is listed too: nobody knows here whether that was committed.
        """
        self.epoch = epoch
        running = []
        for hand in list(self._hands.values()):
            hand.give_back()
            begun = [part[:2] for at, part in enumerate(hand.unit.parts) if at not in hand.given_back]
            if begun:
                running.append(Running(hand.unit.dispatch, hand.unit.job_id, begun, hand.unit.lane))
            else:
                del self._hands[hand.unit.dispatch]
        return running

    def _look(self) -> None:
        """Hands back what waits behind a slow task."""
        self._slow_watch = None
        now = time.monotonic()
        hand = self._batch.current
        if hand is not None and hand.begun >= 0 and hand.unit.dispatch in self._hands:
            timeout_s = decode_step(hand.unit.parts[hand.begun][3]).timeout_s
            if timeout_s is not None and now - hand.task_since > timeout_s:
                message = f"the attempt took longer than its timeout of {timeout_s:g} s"
                self._give_up(hand, TIMED_OUT, "TimeoutError", message)
            elif hand.cancelled and now - hand.task_since > SLOW_TASK_S:
                self._give_up(hand, CANCELLED, "Cancelled", "the job was cancelled while the attempt ran")
            elif now - hand.task_since > SLOW_TASK_S:
                for waiting in [h for h in self._hands.values() if h.unit.lane == BATCH]:
                    self._hand_back(waiting, "slow")
            elif now - hand.since > SLOW_UNIT_S:
                self._hand_back(hand, "slow")
        if any(h.unit.lane == BATCH for h in self._hands.values()):
            self._slow_watch = self._loop.call_later(SLOW_TASK_S, self._look)

    def _give_up(self, hand: Hand, status: int, kind: str, message: str) -> None:
        """Ends a cheap task for everybody else: its thread goes on, and so this process should be replaced."""
        index, attempt, _, _ = hand.unit.parts[hand.begun]
        back = hand.give_back()
        del self._hands[hand.unit.dispatch]
        now = time.time() * 1000
        began = now - (time.monotonic() - hand.task_since) * 1000
        error = told(kind, message, trace=self._batch.where())
        row: Row = (index, attempt, status, began, now, error)  # type: ignore[assignment]
        rows = [*hand.news(), row]
        self._report(Report(hand.unit.dispatch, hand.unit.job_id, rows, back, "slow" if back else None), True)

    def _hand_back(self, hand: Hand, reason: str) -> None:
        """Reports what of a unit has ended by now, and hands back what has not begun."""
        back = hand.give_back()
        news = hand.news()
        if len(hand.given_back) == len(hand.unit.parts):
            del self._hands[hand.unit.dispatch]
        if back or news:
            self._report(Report(hand.unit.dispatch, hand.unit.job_id, news, back, reason), False)

    def finished(self, hand: Hand, not_run: list[int], *, tainted: bool = False) -> None:
        """A unit is over, but for what was handed back before."""
        if self._hands.pop(hand.unit.dispatch, None) is None:
            return
        # Even if all of it was reported before: this report says that no more will come.
        reason = "upstream" if not_run else None
        self._report(Report(hand.unit.dispatch, hand.unit.job_id, hand.news(), not_run, reason), tainted)

    def go_home(self) -> None:
        """Back to the folder in which this process was started, should a tool have left it."""
        with contextlib.suppress(OSError):
            if not self._is_home():
                os.chdir(self._folder)

    def _is_home(self) -> bool:
        try:
            return os.getcwd() == str(self._folder)  # noqa: PTH109  # several times faster than Path.cwd
        except OSError:  # it was removed
            return False

    def _load(self, code: Code) -> Tool:
        tool = self._tools.get(code)
        if tool is None:
            # One at a time: a file that is loaded by one thread must not be found half loaded by another.
            with self._loading:
                tool = self._tools[code] = load(code)
        return tool

    def _tool(self, hand: Hand, step: Step) -> Tool:
        tool = hand.tools[step.tool] = self._load(Code(*hand.unit.tools[step.tool][2]))
        return tool

    # Cheap tasks ---------------------------------------------------------------------------------------------------

    def run_part(self, hand: Hand, position: int) -> tuple[Row, bytes, Any]:
        """Runs one cheap task where it is called: its row, and if it succeeded its value, as JSON and as it is."""
        index, attempt, path, blob = hand.unit.parts[position]
        started = time.time() * 1000
        try:
            step = decode_step(blob)
            scope = hand.scope_of(step)
            if step.when is not None and not evaluate_condition(step.when, scope):
                return (index, attempt, SKIPPED, started, started, CONDITION_FALSE), b"", None  # type: ignore[return-value]
            arguments = resolve(step.arguments, scope)
            if step.tool == RESULT_TOOL:
                value, name = arguments, "outputs"
            else:
                tool = hand.tools.get(step.tool)
                if tool is None:
                    tool = self._tool(hand, step)
                    started = time.time() * 1000  # what importing took is not what the tool takes
                name = tool.spec.name
                context = self._context(hand, index, attempt, path, step) if tool.wants_context else None
                value = tool.call(arguments, context)
            data = encode(value, tool=name)
            wire = data if len(data) <= INLINE_BYTES else self._document(data)
        except BaseException as error:  # noqa: BLE001  # a tool may raise anything, SystemExit included
            return (index, attempt, FAILED, started, time.time() * 1000, failure(error)), b"", None  # type: ignore[return-value]
        return (index, attempt, SUCCEEDED, started, time.time() * 1000, wire), data, value  # type: ignore[return-value]

    def _context(self, hand: Hand, index: int, attempt: int, path: str, step: Step) -> ToolContext:
        job_id = hand.unit.job_id
        deadline = None if step.timeout_s is None else int((time.time() + step.timeout_s) * 1000)
        return ToolContext(job_id, path, attempt, self.epoch, f"{job_id}/{path}", deadline)

    def _document(self, data: bytes) -> Large:
        digest, size = self._documents.put(data, JSON)
        return Large(digest, size, JSON, self._publish(data))

    # Other tasks ---------------------------------------------------------------------------------------------------

    async def _single(self, hand: Hand) -> None:
        """Runs a unit of one task."""
        try:
            hand.todo.popleft()
        except IndexError:
            return
        hand.begun = 0
        index, attempt, _, _ = hand.unit.parts[0]
        started = time.time() * 1000
        self.go_home()
        status, payload, tainted = await self._attempt(hand)
        self.go_home()
        started, over = hand.span or (started, time.time() * 1000)
        hand.rows.append((index, attempt, status, started, over, payload))  # type: ignore[arg-type]
        self.finished(hand, [], tainted=tainted)

    async def _attempt(self, hand: Hand) -> tuple[int, Wire | None, bool]:
        """How the attempt ended, with which value or error, and whether something of it goes on."""
        index, attempt, path, blob = hand.unit.parts[0]
        try:
            step = decode_step(blob)
            scope = hand.scope_of(step)
            if step.when is not None and not evaluate_condition(step.when, scope):
                return SKIPPED, CONDITION_FALSE, False
            arguments = resolve(step.arguments, scope)
            call = self._begin(hand, step, arguments, self._context(hand, index, attempt, path, step))
        except Exception as error:  # noqa: BLE001  # it is the attempt's error
            return FAILED, failure(error), False
        cancelled: asyncio.Future[None] = self._loop.create_future()
        hand.stop = lambda: None if cancelled.done() else cancelled.set_result(None)
        waits: set[asyncio.Future[Any]] = {call.ended, cancelled}
        await asyncio.wait(waits, timeout=step.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if call.ended.done():
            ended = call.ended.result()
            if ended.data is None:
                return FAILED, ended.error, call.goes_on
            return await self._kept(ended.data)
        where = call.where()
        await call.stop()
        if cancelled.done():
            message = "the job was cancelled while the attempt ran"
            return CANCELLED, told("Cancelled", message, trace=where), call.goes_on
        message = f"the attempt took longer than its timeout of {step.timeout_s:g} s"
        return TIMED_OUT, told("TimeoutError", message, trace=where), call.goes_on

    async def _kept(self, data: bytes) -> tuple[int, Wire, bool]:
        if len(data) <= INLINE_BYTES:
            return SUCCEEDED, data, False
        try:
            return SUCCEEDED, await asyncio.to_thread(self._document, data), False
        except Exception as error:  # noqa: BLE001  # it is the attempt's error
            return FAILED, failure(error), False

    def _begin(self, hand: Hand, step: Step, arguments: dict[str, Any], context: ToolContext) -> Call:
        name, kind, address = hand.unit.tools[step.tool]
        code = Code(*address)
        if kind == "process":
            return ProcessCall(code, arguments, context)
        if kind != "async":
            return ThreadCall(lambda: self._call(hand, code, arguments, context))
        if self._coroutines is None:
            self._coroutines = CoroutineThread()
        if self._block_watch is None:
            self._block_watch = self._loop.call_later(PROBE_S, self._look_for_block)

        async def work() -> bytes:
            tool = self._tools.get(code)
            if tool is None:
                # Importing may take long, and the others would wait.
                tool = await asyncio.to_thread(self._load, code)
            return encode(await tool.call(arguments, context), tool=name)

        return CoroutineCall(self._coroutines, work)

    def _call(self, hand: Hand, code: Code, arguments: dict[str, Any], context: ToolContext) -> bytes:
        tool = self._load(code)
        started = time.time() * 1000
        try:
            return encode(tool.call(arguments, context), tool=tool.spec.name)
        finally:
            hand.span = started, time.time() * 1000

    def _look_for_block(self) -> None:
        self._block_watch = None
        if self._coroutines is not None and any(h.unit.lane == "async" for h in self._hands.values()):
            self._coroutines.watch()
            self._block_watch = self._loop.call_later(PROBE_S, self._look_for_block)


class _BatchLane:
    """The thread that runs cheap tasks: one hop between threads for a whole unit."""

    def __init__(self, executor: Executor):
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._queue: deque[Hand] = deque()
        self._wake = threading.Semaphore(0)
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self.current: Hand | None = None

    def put(self, hand: Hand) -> None:
        self._queue.append(hand)
        self._wake.release()
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
            self._thread.start()

    def where(self) -> str:
        """What the task that runs is doing."""
        return stack(frames_of(self._thread)) if self._thread is not None else ""

    def _run(self) -> None:
        executor = self._executor
        while True:
            self._wake.acquire()
            hand = self._queue.popleft()
            executor.go_home()
            not_run = self._run_unit(hand)
            self.current = None
            with contextlib.suppress(RuntimeError):  # the loop may be closed by the time a slow tool returns
                self._loop.call_soon_threadsafe(executor.finished, hand, not_run)

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
            row, data, value = run_part(hand, position)
            if os.getpid() != self._process:
                os._exit(0)  # a tool has forked, and this is the copy: nobody waits for it
            if row[2] == SUCCEEDED:
                values.add(unit.parts[position][2], data, value)
            else:
                not_run += hand.give_back(unit.seeds)
            # Last, because rows are reported while the unit runs.
            rows.append(row)
