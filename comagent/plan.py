"""A process compiled into arrays: what the engine runs.

A process is compiled once per content hash. Tasks become indices `0 … n-1` in the order of the file; index `n` is the
implicit last task that makes the job's result where the values are. Edges are compressed sparse rows: the needs of task
`i` are `needs[needs_at[i]:needs_at[i + 1]]`. What an agent must know of a task is encoded once, in `steps`, and passed
on as bytes; the engine never looks into it.

All arrays are plain lists: the engine reads them one number at a time, which lists do fastest, and a job that grows
appends to copies of them.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from comagent import graph
from comagent.errors import ExpressionError, Problem, ProcessError
from comagent.expressions import Reference, Template, condition, is_constant, references, template
from comagent.nearest import nearest
from comagent.spec import Process, Retry, Task
from comagent.steps import RESULT_TOOL, Step, encode_step

OUTPUTS = "/outputs"
"""Path of the implicit last task; no id may contain a slash, so it collides with none."""

NO_RETRY = Retry()
NO_ARGUMENTS = Template({}, (), ())

ArgumentCheck = Callable[[str, dict[str, Any], frozenset[str]], Sequence[str]]


class ToolUse(NamedTuple):
    """What the engine knows of a tool: everything else is the agents' business."""

    name: str
    kind: str
    cost: str
    effects: str
    code: tuple[Any, ...]


class Policy(NamedTuple):
    """How the engine treats a task; shared by all tasks that are treated alike."""

    tool: int
    trigger: str
    on_failure: str
    retry: Retry
    timeout_s: float | None
    cost: str | None


@dataclass(slots=True)
class Plan:
    """A compiled process. Treat it as immutable: it is shared by all jobs of the process."""

    process_hash: str
    name: str
    ids: list[str]
    """Paths of the tasks; the last one is `OUTPUTS`."""
    needs_at: list[int]
    needs: list[int]
    feeds_at: list[int]
    feeds: list[int]
    """The edges the other way: who needs this task."""
    uses_at: list[int]
    uses: list[int]
    """Whose value, status or error a task reads: a part of what it needs, or further upstream."""
    readers: list[int]
    """How many tasks read a task's value (the implicit last one included)."""
    policy: list[int]
    policies: list[Policy]
    plain: bytearray
    """1 where the trigger is `all_succeeded`."""
    steps: list[bytes]
    """For each task its `Step`, pickled; equal steps are the same object."""
    reads_ends: bytearray
    """1 where a task reads the status or the error of another."""
    tools: list[ToolUse]
    timeout_s: float | None
    index: dict[str, int] = field(repr=False)

    def __len__(self) -> int:
        """Number of tasks, the implicit last one not counted."""
        return len(self.ids) - 1

    def needs_of(self, task: int) -> list[int]:
        return self.needs[self.needs_at[task] : self.needs_at[task + 1]]

    def feeds_of(self, task: int) -> list[int]:
        return self.feeds[self.feeds_at[task] : self.feeds_at[task + 1]]

    def uses_of(self, task: int) -> list[int]:
        return self.uses[self.uses_at[task] : self.uses_at[task + 1]]


class _Compiler:
    """One compilation: collects every defect, so that a user sees all of them at once."""

    def __init__(
        self,
        process: Process,
        tools: Mapping[str, ToolUse],
        check: ArgumentCheck,
    ):
        self.process = process
        self.tools = tools
        self.check = check
        self.checked: dict[tuple[str, frozenset[str]], Sequence[str]] = {}
        self.problems: list[Problem] = []
        self.index: dict[str, int] = {}
        self.encoded: dict[bytes, bytes] = {}
        self.reads_ends = 0

    def problem(self, message: str, *, task: str | None = None, at: str | None = None, remedy: str | None = None) -> None:
        self.problems.append(Problem(message, task=task, field=at, remedy=remedy))

    def compile(self, process_hash: str) -> Plan:
        process = self.process
        self._number_tasks()
        ids = [task.id for task in process.tasks]
        numbers: dict[str, int] = {}
        uses_tool: list[ToolUse] = []
        policies: dict[Policy, int] = {}
        policy: list[int] = []
        steps: list[bytes] = []
        ends = bytearray()
        needs: list[list[int]] = []
        uses: list[list[int]] = []
        further: list[tuple[int, str]] = []
        defaults = process.defaults
        for number, task in enumerate(process.tasks):
            tool = numbers.get(task.tool)
            if tool is None and task.tool in self.tools:
                tool = numbers[task.tool] = len(uses_tool)
                uses_tool.append(self.tools[task.tool])
            arguments, when, read = self._parse(task)
            direct = self._direct_needs(task.id, task.needs)
            if "needs" not in task.model_fields_set:
                direct = list(dict.fromkeys(read))
            else:
                known = set(direct)
                further.extend((number, ids[r]) for r in read if r not in known)
            needs.append(direct)
            uses.append(read)
            timeout_s = task.timeout_s if task.timeout_s is not None else defaults.timeout_s
            rule = Policy(
                tool=0 if tool is None else tool,
                trigger=task.trigger,
                on_failure=task.on_failure or defaults.on_failure or "fail",
                retry=task.retry or defaults.retry or NO_RETRY,
                timeout_s=timeout_s,
                cost=task.cost,
            )
            if rule.trigger.startswith("one_") and not direct:
                message = f"the trigger `{rule.trigger}` waits for what the task needs, and it needs nothing"
                self.problem(message, task=task.id, at="trigger", remedy="Give the task `needs`, or take the trigger out.")
            policy.append(policies.setdefault(rule, len(policies)))
            steps.append(self._encode(Step(rule.tool, arguments, when, timeout_s)))
            ends.append(self.reads_ends)
        self._check_upstream(ids, needs, further)
        if not self.problems:
            self._check_cycles(ids, needs)

        shape, result_uses = self._result(ids, needs)
        ends.append(self.reads_ends)
        if self.problems:
            raise ProcessError(tuple(self.problems))
        uses.append(result_uses)
        rule = Policy(RESULT_TOOL, "all_done", "fail", NO_RETRY, None, "cheap")
        policy.append(policies.setdefault(rule, len(policies)))
        steps.append(self._encode(Step(RESULT_TOOL, shape, None, None)))
        needs.append([])
        needs_at, flat_needs = _rows(needs)
        feeds_at, feeds = _reversed_rows(needs)
        uses_at, flat_uses = _rows(uses)
        readers = [0] * len(needs)
        for used in flat_uses:
            readers[used] += 1
        rules = list(policies)
        plain_rules = [rule.trigger == "all_succeeded" for rule in rules]
        return Plan(
            process_hash=process_hash,
            name=process.name,
            ids=[*ids, OUTPUTS],
            needs_at=needs_at,
            needs=flat_needs,
            feeds_at=feeds_at,
            feeds=feeds,
            uses_at=uses_at,
            uses=flat_uses,
            readers=readers,
            policy=policy,
            policies=rules,
            plain=bytearray(plain_rules[p] for p in policy),
            steps=steps,
            reads_ends=ends,
            tools=uses_tool,
            timeout_s=process.timeout_s,
            index={**self.index, OUTPUTS: len(ids)},
        )

    def _number_tasks(self) -> None:
        for number, task in enumerate(self.process.tasks):
            if self.index.setdefault(task.id, number) != number:
                self.problem(f'two tasks have the id "{task.id}"', task=task.id, at="id", remedy="Rename one of them.")

    def _direct_needs(self, task: str, written: Sequence[str]) -> list[int]:
        direct = []
        for need in written:
            found = self.index.get(need)
            if found is None:
                self.problem(f'no task is called "{need}"', task=task, at="needs", remedy=self._did_you_mean(need))
            elif need == task:
                self.problem("the task needs itself", task=task, at="needs", remedy="Take its own id out of `needs`.")
            else:
                direct.append(found)
        return list(dict.fromkeys(direct)) if len(direct) > 1 else direct

    def _did_you_mean(self, name: str) -> str:
        close = nearest(name, self.index)
        return f'Did you mean "{close[0]}"?' if close else "Add the task, or take the reference out."

    def _parse(self, task: Task) -> tuple[Template, Any, list[int]]:
        """Arguments and condition as templates, and the indices of the tasks that they read."""
        self.reads_ends = 0
        try:
            parsed = template(task.arguments)
        except ExpressionError as error:
            self.problem(str(error), task=task.id, at="with")
            return NO_ARGUMENTS, None, []
        self._check_arguments(task, parsed)
        read = self._check_references(task.id, "with", _referred(parsed))
        when = task.when
        if when is None:
            return parsed, None, read
        try:
            node = condition(when)
        except ExpressionError as error:
            self.problem(str(error), task=task.id, at="when")
            return parsed, None, read
        read += [r for r in self._check_references(task.id, "when", references(node)) if r not in read]
        return parsed, node, read

    def _check_arguments(self, task: Task, parsed: Template) -> None:
        """Asks about the arguments of a tool; tasks that give the same constants are asked about once."""
        constants = parsed.constants
        dynamic = [name for name, _ in parsed.references]
        if parsed.rest:
            constants = constants.copy()
            for name, node in parsed.rest:
                if is_constant(node):
                    constants[name] = node
                else:
                    dynamic.append(name)
        if constants:
            complaints = self.check(task.tool, constants, frozenset(dynamic))
        else:
            key = (task.tool, frozenset(dynamic))
            known = self.checked.get(key)
            complaints = known if known is not None else self.checked.setdefault(key, self.check(task.tool, {}, key[1]))
        for complaint in complaints:
            self.problem(complaint, task=task.id, at="with")

    def _check_references(self, task: str | None, at: str, found: Iterable[tuple[str, str | None]]) -> list[int]:
        read: list[int] = []
        for root, name in found:
            if root in ("item", "index"):
                self.problem(f"`{root}` stands for nothing here", task=task, at=at, remedy="It exists inside `map` only.")
            elif root == "inputs":
                if name is not None and name not in self.process.inputs:
                    close = nearest(name, self.process.inputs)
                    remedy = f'Did you mean "inputs.{close[0]}"?' if close else f'Declare "{name}" under `inputs`.'
                    self.problem(f'the process has no input called "{name}"', task=task, at=at, remedy=remedy)
            elif name is not None:
                if root != "tasks":
                    self.reads_ends = 1
                number = self.index.get(name)
                if number is None:
                    remedy = self._did_you_mean(name)
                    self.problem(f'`{root}.{name}` refers to no task of this process', task=task, at=at, remedy=remedy)
                elif name == task:
                    self.problem("the task refers to its own result", task=task, at=at, remedy="Refer to another task.")
                elif number not in read:
                    read.append(number)
        return read

    def _encode(self, step: Step) -> bytes:
        blob = encode_step(step)
        return self.encoded.setdefault(blob, blob)

    def _check_upstream(self, ids: list[str], needs: list[list[int]], further: list[tuple[int, str]]) -> None:
        """A task may read what is further upstream than its direct needs, and nothing else.

        Searches upward from each task that does so: rare, and a bitset of ancestors for every task would be quadratic.
        """
        above: dict[int, set[int]] = {}
        for number, name in further:
            if number not in above:
                seen: set[int] = set()
                todo = list(needs[number])
                while todo:
                    up = todo.pop()
                    if up not in seen:
                        seen.add(up)
                        todo.extend(needs[up])
                above[number] = seen
            if self.index[name] not in above[number]:
                self.problem(
                    f'the task refers to "{name}", which is not upstream of it',
                    task=ids[number],
                    at="needs",
                    remedy=f'Add "{name}" to its `needs`, or leave `needs` out: references then say what it needs.',
                )

    def _check_cycles(self, ids: list[str], needs: list[list[int]]) -> None:
        left = [len(row) for row in needs]
        feeds: list[list[int]] = [[] for _ in needs]
        for number, row in enumerate(needs):
            for need in row:
                feeds[need].append(number)
        todo = [number for number, count in enumerate(left) if count == 0]
        done = 0
        while todo:
            done += 1
            for fed in feeds[todo.pop()]:
                left[fed] -= 1
                if left[fed] == 0:
                    todo.append(fed)
        if done == len(needs):
            return
        stuck = {number for number, count in enumerate(left) if count > 0}
        cycle = graph.find_cycle(
            [ids[number] for number in stuck],
            {ids[number]: [ids[need] for need in needs[number] if need in stuck] for number in stuck},
        )
        if cycle:
            path = " → ".join([*cycle, cycle[0]] if cycle[0] != cycle[-1] else cycle)
            self.problem(f"tasks need each other in a circle: {path}", task=cycle[0], at="needs", remedy="Cut one edge.")

    def _result(self, ids: list[str], needs: list[list[int]]) -> tuple[Template, list[int]]:
        """The template of the result: the declared outputs, or else the values of all tasks that nothing needs."""
        self.reads_ends = 0
        outputs = self.process.outputs
        if outputs is None:
            needed = {need for row in needs for need in row}
            leaves = [number for number in range(len(ids)) if number not in needed]
            plain = tuple((ids[number], Reference("tasks", ids[number])) for number in leaves)
            return Template({}, plain, ()), leaves
        try:
            shape = template(dict(outputs))
        except ExpressionError as error:
            self.problem(str(error), at="outputs")
            return template({}), []
        return shape, self._check_references(None, "outputs", references(shape))


def _referred(parsed: Template) -> Iterable[tuple[str, str | None]]:
    if parsed.rest:
        return references(parsed)
    return [(reference[0], reference[1]) for _, reference in parsed.references]


def _rows(rows: list[list[int]]) -> tuple[list[int], list[int]]:
    """Compressed sparse rows of `rows`: where each starts (one more entry than rows), and all entries in line."""
    at = [0]
    flat: list[int] = []
    for row in rows:
        flat += row
        at.append(len(flat))
    return at, flat


def _reversed_rows(rows: list[list[int]]) -> tuple[list[int], list[int]]:
    reverse: list[list[int]] = [[] for _ in rows]
    for number, row in enumerate(rows):
        for entry in row:
            reverse[entry].append(number)
    return _rows(reverse)


def compile_process(
    process: Process,
    tools: Mapping[str, ToolUse],
    *,
    process_hash: str,
    check: ArgumentCheck,
) -> Plan:
    """The plan of `process`.

    `tools` has an entry for each tool that could be resolved; a name that is missing there is for `check` to report.
    `check(tool, constants, dynamic)` says what is wrong with arguments, of which those named in `dynamic` have values only
    when the task runs.

    Raises `ProcessError` with everything that is wrong: unknown, duplicate and circular tasks, references to what does
    not exist or is not upstream, invalid expressions.
    """
    return _Compiler(process, tools, check).compile(process_hash)
