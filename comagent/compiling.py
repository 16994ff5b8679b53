"""From a process to its plan: numbers the tasks, finds the edges, and collects every defect on the way.

The tasks of a sub-process become tasks of the job. Before them stands the task that makes its inputs, its *entry*, and
after them the task that makes its result, which is the task that the process around it knows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from comagent import graph
from comagent.errors import ExpressionError, Problem, ProcessError
from comagent.expressions import Reference, Template, condition, is_constant, references, template
from comagent.nearest import nearest
from comagent.plan import OUTPUTS, Group, Plan, Policy, ToolUse
from comagent.spec import Input, Process, Retry, Task, bind_inputs
from comagent.steps import ENTRY, RESULT_TOOL, Step, encode_step

NO_RETRY = Retry()
NO_ARGUMENTS = Template({}, (), ())

ArgumentCheck = Callable[[str, dict[str, Any], frozenset[str]], Sequence[str]]


class _Level(NamedTuple):
    """The process or sub-process that a task belongs to."""

    process: Process
    prefix: str
    """What its paths begin with: nothing, or the path of the task that runs it and a slash."""
    group: int
    numbers: dict[str, int]
    """Index of each of its tasks, by id."""
    entry: int | None
    """The task that makes the inputs of a sub-process."""


class _Compiler:
    """One compilation: collects every defect, so that a user sees all of them at once."""

    def __init__(self, tools: Mapping[str, ToolUse], check: ArgumentCheck):
        self.known_tools = tools
        self.check = check
        self.checked: dict[tuple[str, frozenset[str]], Sequence[str]] = {}
        self.problems: list[Problem] = []
        self.encoded: dict[bytes, bytes] = {}
        self.reads_ends = 0
        self.ids: list[str] = []
        self.group: list[int] = []
        self.groups: list[Group] = []
        self.parts: list[tuple[_Level, Task | None, _Level | None]] = []
        """For each index: its level, its task, and the level of the sub-process that it begins or ends."""
        self.tools: list[ToolUse] = []
        self.tool_numbers: dict[str, int] = {}
        self.policies: dict[Policy, int] = {}
        self.policy_numbers: dict[tuple[Any, ...], int] = {}
        self.policy: list[int] = []
        self.steps: list[bytes] = []
        self.ends = bytearray()
        self.needs: list[list[int]] = []
        self.uses: list[list[int]] = []
        self.further: list[tuple[int, int]] = []
        """(task, a task that it reads and does not need directly)"""

    def problem(
        self, message: str, *, task: str | None = None, at: str | None = None, remedy: str | None = None
    ) -> None:
        self.problems.append(Problem(message, task=task, field=at, remedy=remedy))

    def compile(self, process: Process, process_hash: str) -> Plan:
        root = self._number(process, "", None)
        self.ids.append(OUTPUTS)
        self.group.append(0)
        self.parts.append((root, None, root))
        self.groups[0] = self.groups[0]._replace(result=len(self.ids) - 1)
        for number, (level, task, inner) in enumerate(self.parts):
            if inner is None and task is not None:
                self._add_task(number, level, task)
            elif inner is not None and task is not None and inner.entry == number:
                self._add_entry(number, level, task, inner)
            elif inner is not None:
                self._add_result(inner, task)
        self._check_upstream()
        if not self.problems:
            self._check_cycles()
        if self.problems:
            raise ProcessError(tuple(self.problems))
        needs_at, needs = _rows(self.needs)
        feeds_at, feeds = _reversed_rows(self.needs)
        uses_at, uses = _rows(self.uses)
        readers = [0] * len(self.ids)
        for used in uses:
            readers[used] += 1
        rules = list(self.policies)
        plain_rules = [rule.trigger == "all_succeeded" for rule in rules]
        return Plan(
            process_hash=process_hash,
            name=process.name,
            ids=self.ids,
            needs_at=needs_at,
            needs=needs,
            feeds_at=feeds_at,
            feeds=feeds,
            uses_at=uses_at,
            uses=uses,
            readers=readers,
            policy=self.policy,
            policies=rules,
            plain=bytearray([plain_rules[number] for number in self.policy]),
            steps=self.steps,
            reads_ends=self.ends,
            tools=self.tools,
            group=self.group,
            groups=self.groups,
            results={group.result: number for number, group in enumerate(self.groups)},
            timeout_s=process.timeout_s,
            index={path: number for number, path in enumerate(self.ids)},
        )

    def _number(self, process: Process, prefix: str, entry: int | None) -> _Level:
        """Gives every task an index; those of a sub-process lie between its entry and its result."""
        number = len(self.groups)
        self.groups.append(Group(result=0, entry=entry, first=entry or 0, last=0, size=len(process.tasks)))
        level = _Level(process, prefix, number, {}, entry)
        if entry is not None:
            self.group[entry] = number
            self.groups[number] = self.groups[number]._replace(size=len(process.tasks) + 1)
        ids, group, parts, index = self.ids, self.group, self.parts, level.numbers
        for task in process.tasks:
            inner = None
            if task.process is not None:
                entry_number = len(ids)
                ids.append(f"{prefix}{task.id}/{ENTRY}")
                group.append(number)
                parts.append((level, task, None))
                inner = self._number(task.process, f"{prefix}{task.id}/", entry_number)
                parts[entry_number] = (level, task, inner)
                self.groups[inner.group] = self.groups[inner.group]._replace(result=len(ids))
            if index.setdefault(task.id, len(ids)) != len(ids):
                path = prefix + task.id
                self.problem(f'two tasks have the id "{path}"', task=path, at="id", remedy="Rename one of them.")
            ids.append(prefix + task.id if prefix else task.id)
            group.append(number)
            parts.append((level, task, inner))
        self.groups[number] = self.groups[number]._replace(last=len(ids))
        return level

    def _add_task(self, number: int, level: _Level, task: Task) -> None:
        defaults = level.process.defaults
        name = task.tool or ""
        tool = self.tool_numbers.get(name)
        if tool is None and name in self.known_tools:
            tool = self.tool_numbers[name] = len(self.tools)
            self.tools.append(self.known_tools[name])
        path = self.ids[number]
        self.reads_ends = 0
        parsed = self._template(path, task.arguments)
        if parsed is not None:
            self._check_arguments(path, name, parsed)
        arguments, when, read = self._read(path, level, parsed, task.when)
        self._add_edges(number, level, task, read)
        timeout_s = defaults.timeout_s if task.timeout_s is None else task.timeout_s
        retry = task.retry or defaults.retry or NO_RETRY
        # By the identity of the retry rule: hashing a model takes longer than all the rest.
        key = (tool, task.trigger, task.on_failure, id(retry), timeout_s, task.cost)
        rule = self.policy_numbers.get(key)
        if rule is None:
            policy = Policy(tool or 0, task.trigger, task.on_failure, retry, timeout_s, task.cost)
            rule = self.policy_numbers[key] = self._rule(policy)
        self.policy.append(rule)
        self._add_step(Step(tool or 0, arguments, when, timeout_s, level.prefix))

    def _add_entry(self, number: int, level: _Level, task: Task, inner: _Level) -> None:
        """The task that makes the inputs of a sub-process, from what the task that runs it says under `with`."""
        path = level.prefix + task.id
        self.reads_ends = 0
        for name in ("timeout_s", "retry", "cost"):
            if getattr(task, name) is not None:
                why = "a sub-process is not tried again or stopped as a whole"
                remedy = "Write it on the tasks of the sub-process, or under its `defaults`."
                self.problem(why, task=path, at=name.removesuffix("_s"), remedy=remedy)
        parsed = self._template(path, task.arguments)
        if parsed is not None:
            self._check_inputs(path, inner.process, parsed)
        arguments, when, read = self._read(path, level, parsed, task.when)
        defaults = _default_inputs(inner.process, task.arguments)
        arguments = arguments._replace(constants={**defaults, **arguments.constants})
        self._add_edges(number, level, task, read)
        self.policy.append(self._rule(Policy(RESULT_TOOL, task.trigger, "fail", NO_RETRY, None, "cheap")))
        self._add_step(Step(RESULT_TOOL, arguments, when, None, level.prefix))

    def _add_result(self, inner: _Level, task: Task | None) -> None:
        """The task that makes the result of the process or of a sub-process, when all its tasks have ended."""
        self.reads_ends = 0
        shape, read = self._result(inner)
        self.needs.append([])
        self.uses.append(read)
        on_failure = "fail" if task is None else task.on_failure
        self.policy.append(self._rule(Policy(RESULT_TOOL, "all_done", on_failure, NO_RETRY, None, "cheap")))
        self._add_step(Step(RESULT_TOOL, shape, None, None, inner.prefix))

    def _add_edges(self, number: int, level: _Level, task: Task, read: list[int]) -> None:
        if task.declares_needs:
            direct = self._direct_needs(self.ids[number], level, task.needs)
            known = direct if len(direct) < 8 else set(direct)
            further = [each for each in read if each not in known and each != level.entry]
            if further:
                self.further += [(number, each) for each in further]
        else:
            direct = [each for each in read if each != level.entry]
        if not direct and level.entry is not None:
            direct = [level.entry]
        elif task.trigger.startswith("one_") and not direct:
            message = f"the trigger `{task.trigger}` waits for what the task needs, and it needs nothing"
            remedy = "Give the task `needs`, or take the trigger out."
            self.problem(message, task=level.prefix + task.id, at="trigger", remedy=remedy)
        self.needs.append(direct)
        self.uses.append(read)

    def _add_step(self, step: Step) -> None:
        self.steps.append(self._encode(step))
        self.ends.append(self.reads_ends)

    def _rule(self, policy: Policy) -> int:
        return self.policies.setdefault(policy, len(self.policies))

    def _direct_needs(self, path: str, level: _Level, written: Sequence[str]) -> list[int]:
        direct = []
        index = level.numbers
        for need in written:
            found = index.get(need)
            if found is None:
                self.problem(f'no task is called "{need}"', task=path, at="needs", remedy=_did_you_mean(need, index))
            elif self.ids[found] == path:
                self.problem("the task needs itself", task=path, at="needs", remedy="Take its own id out of `needs`.")
            else:
                direct.append(found)
        return list(dict.fromkeys(direct)) if len(direct) > 1 else direct

    def _template(self, path: str, arguments: Mapping[str, Any]) -> Template | None:
        try:
            return template(arguments)
        except ExpressionError as error:
            self.problem(str(error), task=path, at="with")
            return None

    def _read(
        self, path: str, level: _Level, parsed: Template | None, when: str | None
    ) -> tuple[Template, Any, list[int]]:
        """Arguments and condition as templates, and the indices of the tasks that they read."""
        if parsed is None:
            return NO_ARGUMENTS, None, []
        read = self._check_references(path, level, "with", _referred(parsed))
        if when is None:
            return parsed, None, read
        try:
            node = condition(when)
        except ExpressionError as error:
            self.problem(str(error), task=path, at="when")
            return parsed, None, read
        read += self._check_references(path, level, "when", references(node))
        return parsed, node, list(dict.fromkeys(read))

    def _check_arguments(self, path: str, tool: str, parsed: Template) -> None:
        """Asks about the arguments of a tool; tasks that give the same constants are asked about once."""
        constants, dynamic = _constants(parsed)
        if constants:
            complaints = self.check(tool, constants, dynamic)
        else:
            key = (tool, dynamic)
            known = self.checked.get(key)
            complaints = known if known is not None else self.checked.setdefault(key, self.check(tool, {}, dynamic))
        for complaint in complaints:
            self.problem(complaint, task=path, at="with")

    def _check_inputs(self, path: str, process: Process, parsed: Template) -> None:
        """What is known of the inputs of a sub-process must fit it."""
        constants, dynamic = _constants(parsed)
        surplus = [name for name in dynamic if name not in process.inputs]
        given = {**constants, **dict.fromkeys(surplus)}
        declared = {name: Input() if name in dynamic else each for name, each in process.inputs.items()}
        try:
            bind_inputs(process.model_copy(update={"inputs": declared}), {**given, **dict.fromkeys(dynamic)})
        except ProcessError as error:
            for problem in error.problems:
                at = (problem.field or "").replace("inputs.", "with.", 1)
                self.problem(problem.message, task=path, at=at, remedy=problem.remedy)

    def _check_references(
        self, path: str | None, level: _Level, at: str, found: Iterable[tuple[str, str | None]]
    ) -> list[int]:
        read: dict[int, None] = {}
        for root, name in found:
            if root in ("item", "index"):
                remedy = "It exists inside `map` only."
                self.problem(f"`{root}` stands for nothing here", task=path, at=at, remedy=remedy)
            elif root == "inputs":
                self._check_input(path, level, at, name)
                if level.entry is not None:
                    read[level.entry] = None
            elif name is not None:
                if root != "tasks":
                    self.reads_ends = 1
                number = level.numbers.get(name)
                if number is None:
                    remedy = _did_you_mean(name, level.numbers)
                    self.problem(f"`{root}.{name}` refers to no task of this process", task=path, at=at, remedy=remedy)
                elif self.ids[number] == path:
                    self.problem("the task refers to its own result", task=path, at=at, remedy="Refer to another task.")
                else:
                    read[number] = None
        return list(read)

    def _check_input(self, path: str | None, level: _Level, at: str, name: str | None) -> None:
        inputs = level.process.inputs
        if name is not None and name not in inputs:
            close = nearest(name, inputs)
            remedy = f'Did you mean "inputs.{close[0]}"?' if close else f'Declare "{name}" under `inputs`.'
            self.problem(f'the process has no input called "{name}"', task=path, at=at, remedy=remedy)

    def _encode(self, step: Step) -> bytes:
        blob = encode_step(step)
        return self.encoded.setdefault(blob, blob)

    def _check_upstream(self) -> None:
        """A task may read what is further upstream than its direct needs, and nothing else.

        Searches upward from each task that does so: rare, and a bitset of ancestors for every task would be quadratic.
        """
        needs = self._order()
        above: dict[int, set[int]] = {}
        for number, used in self.further:
            if number not in above:
                seen: set[int] = set()
                todo = list(needs[number])
                while todo:
                    up = todo.pop()
                    if up not in seen:
                        seen.add(up)
                        todo.extend(needs[up])
                above[number] = seen
            if used not in above[number]:
                name = self.ids[used].rpartition("/")[2]
                self.problem(
                    f'the task refers to "{name}", which is not upstream of it',
                    task=self.ids[number],
                    at="needs",
                    remedy=f'Add "{name}" to its `needs`, or leave `needs` out: references then say what it needs.',
                )

    def _order(self) -> list[list[int]]:
        """What comes before each task: what it needs, and before the result of a sub-process its entry."""
        if len(self.groups) == 1:
            return self.needs
        needs = self.needs.copy()
        for group in self.groups:
            if group.entry is not None:
                needs[group.result] = [group.entry]
        return needs

    def _check_cycles(self) -> None:
        needs, ids = self._order(), self.ids
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
            named = [path for path in cycle[:-1] if not path.endswith(f"/{ENTRY}")]
            message = f"tasks need each other in a circle: {' → '.join([*named, named[0]])}"
            self.problem(message, task=named[0], at="needs", remedy="Cut one edge.")

    def _result(self, level: _Level) -> tuple[Template, list[int]]:
        """The template of a result: the declared outputs, or else the values of all tasks that nothing needs."""
        outputs = level.process.outputs
        if outputs is None:
            group = self.groups[level.group]
            needed = {need for row in self.needs[group.first : group.last] for need in row}
            leaves = {name: number for name, number in level.numbers.items() if number not in needed}
            return Template({}, tuple((name, Reference("tasks", name)) for name in leaves), ()), list(leaves.values())
        path = level.prefix.removesuffix("/") or None
        try:
            shape = template(outputs)
        except ExpressionError as error:
            self.problem(str(error), task=path, at="outputs")
            return NO_ARGUMENTS, []
        return shape, self._check_references(path, level, "outputs", references(shape))


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = nearest(name, names)
    return f'Did you mean "{close[0]}"?' if close else "Add the task, or take the reference out."


def _constants(parsed: Template) -> tuple[dict[str, Any], frozenset[str]]:
    """The arguments whose values are known, and the names of the others."""
    constants = parsed.constants
    dynamic = [name for name, _ in parsed.references]
    if parsed.rest:
        constants = constants.copy()
        for name, node in parsed.rest:
            if is_constant(node):
                constants[name] = node
            else:
                dynamic.append(name)
    return constants, frozenset(dynamic)


def _default_inputs(process: Process, given: Mapping[str, Any]) -> dict[str, Any]:
    return {name: declared.default for name, declared in process.inputs.items() if name not in given}


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
    `check(tool, constants, dynamic)` says what is wrong with arguments, of which those named in `dynamic` have values
    only when the task runs.

    Raises `ProcessError` with everything that is wrong: unknown, duplicate and circular tasks, references to what does
    not exist or is not upstream, invalid expressions.
    """
    return _Compiler(tools, check).compile(process, process_hash)
