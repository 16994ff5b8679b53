"""Processes written in Python: step by step, or as a function whose calls of tools are its steps.

    process = Process("words")
    count = process.step(count_words, text=process.input("text"))
    process.outputs(words=count)

A step stands for its result, which is known when a job runs; as an argument of another step it is a dependency.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, NoReturn, get_args, overload

from comagent import spec
from comagent.errors import ExpressionError, InputError, Problem, ProcessError
from comagent.expressions import Reference, condition, references, template
from comagent.spec import Cost, InputType, OnFailure, Retry, Trigger
from comagent.tools.base import ToolContext, options_of
from comagent.tools.recording import recording
from comagent.tools.schema import parameters
from comagent.tools.source import path_of
from comagent.values import SCALARS
from comagent.writing import to_yaml

__all__ = ["Process", "Step", "Value", "process", "step"]

Action = str | Callable[..., Any] | spec.Process
"""A tool's name, a function, or a process that becomes a part of this one."""

_UNSET: Any = object()
_BACKOFF_S = 2.0
_TYPES: Mapping[object, InputType] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    list: "array",
    dict: "object",
}
_current: ContextVar["Process | None"] = ContextVar("comagent_process", default=None)


class Value:
    """Stands for a value that is known when a job runs. Give it to a step as an argument.

    `value["rows"]`, `value.rows` and `value[0]` stand for its parts; names with an underscore in front need brackets.
    """

    def __init__(self, process: "Process", reference: Reference):
        self._process = process
        self._reference = reference

    def __getitem__(self, key: str | int) -> "Value":
        is_key = type(key) is str and min(key, default=" ") >= " "
        if not is_key and not (type(key) is int and key >= 0):
            remedy = "Take the part in an expression or in a function of your own."
            problem = f"{key!r} is neither a place counted from 0 nor a key without control characters"
            raise ExpressionError(str(self._reference), problem, remedy)
        return Value(self._process, self._reference._replace(path=(*self._reference.path, key)))

    def __getattr__(self, name: str) -> "Value":
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} ${{{self._reference}}}>"

    def __str__(self) -> str:  # noqa: PLE0307  # it raises
        self._refuse(f'Write "${{{self._reference}}}" in a text without an f before it: it is filled in by then.')

    def __format__(self, _how: str) -> str:
        return str(self)

    def __bool__(self) -> bool:  # noqa: PLE0304  # it raises
        self._refuse('Write a condition as text: `when="…"`.')

    def __iter__(self) -> Iterator[Any]:
        self._refuse("Give it to a step that takes the whole list.")

    def _refuse(self, remedy: str) -> NoReturn:
        raise ExpressionError(str(self._reference), "its value is known when a job runs, not now", remedy)


class Step(Value):
    """A step of a process, and what stands for its result."""

    def __init__(self, process: "Process", id: str):
        super().__init__(process, Reference("tasks", id))
        self.step_id = id


class Process:
    """A process that is being written. Submit it, make YAML of it, or make it a step of another one.

    What is wrong with a step as such is refused at once, what is wrong with the whole by `definition` and when it is
    submitted. In texts `${…}` means what it means in a file.
    """

    def __init__(
        self,
        name: str,
        *,
        id: str = "",
        description: str = "",
        timeout: str | float | None = None,
        priority: str | int = 0,
        defaults: Mapping[str, Any] | None = None,
    ):
        given = {"name": name, "id": id, "description": description, "priority": priority}
        self._document: dict[str, Any] = {key: value for key, value in given.items() if value or key == "name"}
        if timeout is not None:
            self._document["timeout"] = timeout
        if defaults is not None:
            self._document["defaults"] = dict(defaults)
        self._inputs: dict[str, dict[str, Any]] = {}
        self._tasks: list[dict[str, Any]] = []
        self._outputs: dict[str, Any] | None = None
        self._ids: set[str] = set()
        self._numbers: dict[str, int] = {}
        """The last one that a step got which is called like others."""
        self._definition: spec.Process | None = None

    @property
    def name(self) -> str:
        return str(self._document["name"])

    def input(
        self, name: str, type: InputType | type | None = None, *, default: Any = _UNSET, description: str = ""
    ) -> Value:
        """An input of the process. The first call declares it, with a name of a type or a type of Python."""
        declared: dict[str, Any] = {}
        if type is not None:
            declared["type"] = _TYPES.get(type, type)
        if default is not _UNSET:
            declared["default"] = default
        if description:
            declared["description"] = description
        if self._inputs.setdefault(name, declared) != declared and declared:
            raise _refusal("the input is declared twice, in different ways", field=f"inputs.{name}")
        self._definition = None
        return Value(self, Reference("inputs", name))

    def step(
        self,
        action: "Action | Process",
        arguments: Mapping[str, Any] | None = None,
        /,
        *,
        id: str | None = None,
        name: str = "",
        description: str = "",
        agent: str | Mapping[str, Any] | None = None,
        needs: "Sequence[Step | str] | None" = None,
        retries: int | Mapping[str, Any] | Retry | None = None,
        timeout: str | float | None = None,
        when: str | Value | None = None,
        trigger: Trigger = "all_succeeded",
        on_failure: OnFailure = "fail",
        cost: Cost | None = None,
        **more: Any,
    ) -> Step:
        """Adds a step that runs `action`, and gives what stands for its result.

        The arguments are given by name; those that are called like an option of this method go into `arguments`. Steps
        among them are dependencies, and `needs` may name more. `retries` are tries after the first, or a whole rule as
        in a file. Without an id the step is called like its action.
        """
        given = {**(arguments or {}), **more}
        tool, process, title = _resolved(action)
        step_id = self._free_id(title) if id is None else id
        if twice := [each for each in more if each in (arguments or {})]:
            raise _refusal("the argument is given twice", task=step_id, field=f"with.{twice[0]}")
        task: dict[str, Any] = {"id": step_id}
        task |= {"tool": tool} if process is None else {"process": process}
        written = {key: self._written(value, step_id, f"with.{key}") for key, value in given.items()}
        if isinstance(when, Value):
            when = self._text(when, step_id, "when")
        optional = {"name": name, "description": description, "agent": agent, "with": written}
        optional |= {"when": when, "cost": cost}
        task |= {key: value for key, value in optional.items() if value not in (None, "", {})}
        if needs is not None:
            task["needs"] = list(dict.fromkeys([*(self._need(need, step_id) for need in needs), *_read(written, when)]))
        if retries is not None:
            task["retry"] = {"max_retries": retries} if isinstance(retries, int) else retries
        if timeout is not None:
            task["timeout"] = timeout
        if trigger != "all_succeeded":
            task["trigger"] = trigger
        if on_failure != "fail":
            task["on_failure"] = on_failure
        if step_id in self._ids:
            raise _refusal("several steps have this id", task=step_id, field="id", remedy="Give one of them another.")
        self._ids.add(step_id)
        self._tasks.append(task)
        self._definition = None
        return Step(self, step_id)

    def add_step(
        self,
        step_id: str,
        name: str,
        action: "Action | Process",
        dependencies: "Sequence[Step | str] | None" = None,
        *,
        arguments: Mapping[str, Any] | None = None,
        max_retries: int = 3,
        timeout: str | float = 300,
    ) -> Step:
        """Adds a step that waits for `dependencies`, and is tried again so many times after 2, 4, 8 … seconds."""
        retry = {"max_retries": max_retries, "delay": _BACKOFF_S}
        return self.step(
            action, arguments, id=step_id, name=name, needs=dependencies or (), retries=retry, timeout=timeout
        )

    def outputs(self, /, **values: Any) -> None:
        """What a job of this process gives, by name. Where nothing is said: the results that no other step takes."""
        self._outputs = {key: self._written(value, None, f"outputs.{key}") for key, value in values.items()}
        self._definition = None

    def definition(self) -> spec.Process:
        """The process as it is now. Raises `ProcessError` with everything that is wrong apart from its tools."""
        if self._definition is None:
            document = {**self._document, "tasks": self._tasks}
            if self._inputs:
                document["inputs"] = self._inputs
            if self._outputs is not None:
                document["outputs"] = self._outputs
            self._definition = spec.parse(document)
        return self._definition

    def document(self) -> dict[str, Any]:
        """The canonical document of the process. Raises `ProcessError`."""
        return self.definition().document()

    def to_yaml(self) -> str:
        """The process as a file from which an equal one is read. Raises `ProcessError`.

        Functions are named by their modules. A function of the program that runs is `__main__.…`, which no other
        program finds: have it in a module of its own.
        """
        return to_yaml(_in_order(self.document()))

    def __repr__(self) -> str:
        return f"<Process {self.name!r} with {len(self._tasks)} steps>"

    def _free_id(self, title: str) -> str:
        wanted = title.translate(str.maketrans("[]/", "---"))
        while True:
            number = self._numbers[wanted] = self._numbers.get(wanted, 0) + 1
            name = wanted if number == 1 else f"{wanted}_{number}"
            if name not in self._ids:
                return name

    def _need(self, need: "Step | str", id: str) -> str:
        if not isinstance(need, Step):
            return need
        self._text(need, id, "needs")
        return need.step_id

    def _text(self, value: Value, id: str | None, field: str) -> str:
        if value._process is not self:
            remedy = "Make that process a step of this one, and take the result of the step."
            raise _refusal(f"{value!r} belongs to another process", task=id, field=field, remedy=remedy)
        return f"${{{value._reference}}}"

    def _key(self, key: Any, id: str | None, field: str) -> str:
        if isinstance(key, str):
            return key
        raise _refusal(
            f"the key {key!r} is no text", task=id, field=field, remedy="Write it in quotes: a file has no others."
        )

    def _written(self, value: Any, id: str | None, field: str) -> Any:
        """An argument as a file has it."""
        if isinstance(value, Value):
            return self._text(value, id, field)
        if isinstance(value, Mapping):
            return {self._key(key, id, field): self._written(item, id, f"{field}.{key}") for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._written(item, id, f"{field}.{number}") for number, item in enumerate(value)]
        if type(value) in SCALARS:
            return value
        problem = f"a {type(value).__name__} cannot be written into a process"
        raise _refusal(problem, task=id, field=field, remedy="Give text, numbers, lists, mappings, or steps.")


@overload
def process(function: Callable[..., Any], /) -> Process: ...


@overload
def process(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: str | float | None = None,
    priority: str | int = 0,
    defaults: Mapping[str, Any] | None = None,
) -> Callable[[Callable[..., Any]], Process]: ...


def process(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: str | float | None = None,
    priority: str | int = 0,
    defaults: Mapping[str, Any] | None = None,
) -> Process | Callable[[Callable[..., Any]], Process]:
    """Makes a process of a function, which is called once, now.

    Its parameters are the inputs. In it a call of a declared tool is a step, and gives what stands for the result;
    `step` does the same for other functions and tools' names, and takes options. What it returns are the outputs: a
    dictionary by name, or one value, which is called `result`. Anything else in it is done now, not in a job.
    """

    def make(function: Callable[..., Any]) -> Process:
        shown = name or function.__name__
        about = inspect.getdoc(function) or "" if description is None else description
        made = Process(shown, description=about, timeout=timeout, priority=priority, defaults=defaults)
        inputs = {}
        hints = inspect.get_annotations(function, eval_str=True)
        for parameter in parameters(function, shown):
            if parameter.kind is parameter.VAR_KEYWORD:
                raise _refusal(f"the inputs cannot be told from **{parameter.name}", remedy="Name each of them.")
            default = _UNSET if parameter.default is parameter.empty else parameter.default
            inputs[parameter.name] = made.input(parameter.name, _type(hints.get(parameter.name)), default=default)
        token = _current.set(made)
        try:
            with recording(lambda tool, args, kwargs: made.step(tool, _named(tool, args, kwargs))):
                result = function(**inputs)
        finally:
            _current.reset(token)
        if result is not None:
            made.outputs(**(result if isinstance(result, dict) else {"result": result}))
        return made

    return make if function is None else make(function)


def step(action: Action | Process, arguments: Mapping[str, Any] | None = None, /, **options: Any) -> Step:
    """Adds a step to the process whose function is being called; the same as `Process.step`."""
    made = _current.get()
    if made is None:
        raise _refusal("there is no process that a step could belong to", remedy=_OUTSIDE)
    return made.step(action, arguments, **options)


_OUTSIDE = "Call it in a function that is decorated with `@comagent.process`, or call `step` of a `Process`."


def _refusal(
    problem: str, *, task: str | None = None, field: str | None = None, remedy: str | None = None
) -> InputError:
    return ProcessError((Problem(problem, task=task, field=field, remedy=remedy),))


def _resolved(action: Action | Process) -> tuple[str | None, spec.Process | None, str]:
    """Tool or process, and what to call a step that runs it."""
    if isinstance(action, Process):
        action = action.definition()
    if isinstance(action, spec.Process):
        return None, action, action.name
    if isinstance(action, str):
        return action, None, action.rpartition(".")[2] or action
    if isinstance(action, Value):
        raise _refusal(f"{action!r} is the result of a step, not a tool", remedy="Give it as an argument.")
    options = options_of(action)
    title = str(getattr(action, "__name__", type(action).__name__))
    path = path_of(action, name=title)
    if options is not None and options.name is not None and path.startswith("comagent.tools."):
        return options.name, None, title
    return f"python:{path}", None, title


def _named(tool: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call by the names of the parameters. Raises TypeError as the call itself would."""
    signature = inspect.signature(tool)
    bound = signature.bind_partial(*args, **kwargs).arguments
    named: dict[str, Any] = {}
    for name, value in bound.items():
        named |= value if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD else {name: value}
    return {name: value for name, value in named.items() if not isinstance(value, ToolContext)}


def _in_order(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the keys of its tasks as a person would write them."""
    tasks = [
        {key: task[key] for key in sorted(task, key=lambda key: _ORDER.find(f" {key} "))} for task in document["tasks"]
    ]
    for task in tasks:
        if "process" in task:
            task["process"] = _in_order(task["process"])
    return {**document, "tasks": tasks}


_ORDER = " id name description agent needs when trigger tool process with on_failure retry timeout cost "


def _type(hint: Any) -> Any:
    origin = getattr(hint, "__origin__", hint)
    options = [each for each in get_args(hint) if each is not type(None)]
    if origin not in _TYPES and len(options) == 1 and type(None) in get_args(hint):
        return _type(options[0])
    return origin if origin in _TYPES else None


def _read(arguments: Mapping[str, Any], when: str | None) -> list[str]:
    """The tasks that a step reads; what cannot be read is reported when the whole is checked."""
    found: set[tuple[str, str | None]] = set()
    with suppress(ExpressionError):
        found |= references(template(arguments))
    with suppress(ExpressionError):
        found |= references(condition(when)) if when else set()
    return sorted(name for root, name in found if root != "inputs" and name is not None)
