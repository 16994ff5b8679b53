"""What a process is: the models behind a workflow file, and what is checked without looking at tools.

Whether needs, references and tools exist is checked where a process is compiled.
"""

import json
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from comagent.errors import Problem, ProcessError
from comagent.nearest import did_you_mean
from comagent.values import canonical_json

__all__ = [
    "MAX_DEPTH",
    "PRIORITIES",
    "Cost",
    "Defaults",
    "Duration",
    "Input",
    "InputType",
    "OnFailure",
    "Process",
    "Retry",
    "Task",
    "Trigger",
    "bind_inputs",
    "canonical_json",
    "content_hash",
    "parse",
    "parse_duration",
    "too_deep",
]

Trigger = Literal["all_succeeded", "all_done", "one_succeeded", "one_failed", "none_failed"]
OnFailure = Literal["fail", "continue", "skip"]
Cost = Literal["cheap", "costly"]
InputType = Literal["string", "integer", "number", "boolean", "array", "object", "any"]

PRIORITIES: Mapping[str, int] = {"critical": 30, "high": 10, "normal": 0, "low": -10}
"""A larger number is more urgent."""

MAX_DEPTH = 100
"""How deep lists and mappings may be nested in a process."""

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|[smhd]))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[smhd])")


def parse_duration(value: object) -> float:
    """Seconds, from `30s`, `5m`, `1h30m`, `250ms`, `2d` or a number of seconds. Raises ValueError."""
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value) if abs(value) < 1e18 else math.inf
    elif isinstance(value, str) and _DURATION.fullmatch(compact := value.replace(" ", "")):
        seconds = sum(float(number) * _UNITS_S[unit] for number, unit in _DURATION_PART.findall(compact))
    if not (math.isfinite(seconds) and seconds >= 0):
        raise ValueError(f"{_shown(value)} is no duration; write 30s, 5m, 1h30m, 250ms or a number of seconds")
    return seconds


def _refusal(problem: str, *, field: str = "") -> PydanticCustomError:
    """A defect in our own words; `field` names the field of a model that is checked as a whole."""
    return PydanticCustomError("comagent", "{problem}", {"problem": problem, "field": field})


def _duration(value: object) -> float:
    try:
        return parse_duration(value)
    except ValueError as error:
        raise _refusal(str(error)) from None


def _priority(value: object) -> object:
    if isinstance(value, str) and value not in PRIORITIES:
        raise _refusal(f"{_shown(value)} is no priority; write {', '.join(PRIORITIES)} or a whole number")
    return PRIORITIES[value] if isinstance(value, str) else value


Duration = Annotated[float, BeforeValidator(_duration)]
_Timeout = Annotated[Duration, Field(gt=0)]
_Id = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\[\]/\x00-\x1f\x7f]*$")]
_InputName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_by_name=True, validate_by_alias=True, allow_inf_nan=False
    )


class Retry(_Model):
    """How often and when a failed task is tried again."""

    attempts: int = Field(1, ge=1, le=1000, strict=True)
    """Tries in all, the first one included."""
    delay_s: Duration = Field(1.0, validation_alias="delay", serialization_alias="delay")
    """Before the second try; each further delay is `factor` times the one before."""
    factor: float = Field(2.0, ge=1, le=1000, strict=True)
    max_delay_s: Duration = Field(60.0, validation_alias="max_delay", serialization_alias="max_delay")
    jitter: float = Field(0.1, ge=0, le=1, strict=True)
    """By which part of itself a delay may be longer or shorter."""
    on: tuple[str, ...] = ()
    """Names of the error types that are tried again; empty means all. `timeout` stands for `TimeoutError`."""

    @model_validator(mode="before")
    @classmethod
    def _attempts_from_max_retries(cls, data: object) -> object:
        """`max_retries: 3` is another way to write `attempts: 4`."""
        if not isinstance(data, dict) or "max_retries" not in data:
            return data
        rest = dict(data)
        retries = rest.pop("max_retries")
        if "attempts" in rest:
            raise _refusal(
                "attempts and max_retries say the same; write one of them (attempts counts the first try too)"
            )
        if type(retries) is not int or retries < 0:
            raise _refusal(f"max_retries must be a whole number from 0, not {_shown(retries)}")
        return rest | {"attempts": retries + 1}


class Input(_Model):
    """One input of a process."""

    type: InputType = "any"
    default: Any = None
    """Counts only where it is written; a written null is a default too."""
    required: bool | None = Field(None, strict=True)
    """Where it is not written: true exactly if there is no default. Read `is_required` instead."""
    description: str = ""

    @property
    def is_required(self) -> bool:
        """Whether a job cannot start without it. An input that is neither required nor given is null."""
        return "default" not in self.model_fields_set if self.required is None else self.required

    @model_validator(mode="after")
    def _default_fits(self) -> "Input":
        if "default" in self.model_fields_set:
            if self.required:
                raise _refusal("it is required and yet has a default; write one of the two")
            if self.default is not None and not _fits(self.default, self.type):
                raise _refusal(f"its default must be {_KINDS[self.type]}, not {_shown(self.default)}")
        return self


class _Limits(_Model):
    timeout_s: _Timeout | None = Field(None, validation_alias="timeout", serialization_alias="timeout")
    """For one attempt at a task."""
    retry: Retry | None = None

    @model_validator(mode="before")
    @classmethod
    def _retry_from_max_retries(cls, data: object) -> object:
        """Beside `retry`, `max_retries` is short for `retry: {max_retries: …}`."""
        if not isinstance(data, dict) or "max_retries" not in data:
            return data
        rest = dict(data)
        retries = rest.pop("max_retries")
        retry = rest.get("retry") or {}
        return rest | {"retry": {**retry, "max_retries": retries}} if isinstance(retry, dict) else data


class Defaults(_Limits):
    """What holds for the tasks that say nothing else."""


class Task(_Limits):
    """A node of the graph: one call of a tool, or one run of another process."""

    id: _Id
    tool: str | None = Field(None, min_length=1)
    agent: str | dict[str, Any] | None = None
    """Whose task it is: the id or name of an agent that is defined elsewhere, or a definition. It may stand in place of
    a tool where the agent has exactly one."""
    process: "Process | None" = None
    """In place of a tool: a process whose inputs are given under `with`. Its tasks become part of the job, and its
    result is the task's value. In a file also the path of another file, relative to the first."""
    name: str = ""
    description: str = ""
    needs: tuple[str, ...] = ()
    """Ids of the tasks that come first. See `declares_needs`."""
    arguments: dict[str, Any] = Field({}, validation_alias="with", serialization_alias="with")
    """What the tool is called with, by parameter; strings may hold `${…}`."""
    when: str | None = None
    """A condition; where it is false the task is skipped."""
    trigger: Trigger = "all_succeeded"
    on_failure: OnFailure = "fail"
    cost: Cost | None = None
    """Where it is not written, the tool's own."""

    @model_validator(mode="after")
    def _tool_or_process(self) -> "Task":
        if self.tool is None and self.agent is None and self.process is None:
            raise _refusal("a task has a tool, an agent or a process", field="tool")
        if self.process is not None and not (self.tool is None and self.agent is None):
            raise _refusal("a task has either a tool or a process", field="tool" if self.agent is None else "agent")
        return self

    @property
    def declares_needs(self) -> bool:
        """Whether `needs` is written, be it empty; where it is not, the references in the task say what it needs."""
        return "needs" in self.model_fields_set


def _at_least_one(tasks: tuple[Task, ...]) -> tuple[Task, ...]:
    if not tasks:
        raise _refusal("there must be at least one task")
    return tasks


class Process(_Model):
    """A definition of what a job does."""

    name: str = Field(min_length=1, max_length=200)
    id: str = ""
    """Whatever its author knows it by. It says nothing to the engine."""
    description: str = ""
    inputs: dict[_InputName, Input] = Field({})
    defaults: Defaults = Defaults()
    tasks: Annotated[tuple[Task, ...], AfterValidator(_at_least_one)]
    outputs: dict[str, Any] | None = None
    """The result of a job, by name. Where it is not written, the results of the tasks that nothing needs."""
    timeout_s: _Timeout | None = Field(None, validation_alias="timeout", serialization_alias="timeout")
    """For the whole job."""
    priority: Annotated[int, BeforeValidator(_priority), Field(strict=True, ge=-(2**31), lt=2**31)] = 0

    def all_tasks(self, prefix: str = "") -> "Iterator[tuple[str, Task]]":
        """All tasks with their paths, those of sub-processes included."""
        for task in self.tasks:
            yield prefix + task.id, task
            if task.process is not None:
                yield from task.process.all_tasks(f"{prefix}{task.id}/")

    def timeout_s_of(self, task: Task) -> float | None:
        """The limit of one attempt at `task`, its own or the default."""
        return self.defaults.timeout_s if task.timeout_s is None else task.timeout_s

    def retry_of(self, task: Task) -> Retry:
        """How `task` is tried again: its own rule, the default, or not at all."""
        return task.retry or self.defaults.retry or Retry()

    def document(self) -> dict[str, Any]:
        """The canonical form: JSON-able, short keys, what has its default left out. `parse` gives an equal process."""
        document = self.model_dump(by_alias=True, exclude_defaults=True)
        for entry, task in zip(document["tasks"], self.tasks, strict=True):
            if task.declares_needs and not task.needs:
                entry["needs"] = ()
            if task.process is not None:
                entry["process"] = task.process.document()
        for name, declared in self.inputs.items():
            if "default" in declared.model_fields_set:
                document["inputs"][name]["default"] = declared.default
        return document


def parse(document: Mapping[str, Any], *, file: str | None = None) -> Process:
    """The process that `document` describes. Raises ProcessError with all defects that can be seen at once."""
    if not isinstance(document, Mapping):
        problem = f"a process is a mapping with name and tasks, not {_shown(document)}"
        raise ProcessError((Problem(problem, file=file),))
    if too_deep(dict(document)):
        raise ProcessError((Problem(f"lists and mappings are nested more than {MAX_DEPTH} deep", file=file),))
    try:
        process = Process.model_validate(document, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False, include_context=True)
        raise ProcessError(tuple(_problem(detail, document, file) for detail in details)) from None
    twice = _repeated(task.id for task in process.tasks)
    if twice:
        problems = (Problem("several tasks have this id", file, task=id_, field="id", remedy=_RENAME) for id_ in twice)
        raise ProcessError(tuple(problems))
    return process


def bind_inputs(process: Process, given: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a job, by name: those given, then defaults, null for what is optional. Raises ProcessError."""
    problems = []
    for name in given:
        if name not in process.inputs:
            declared = ", ".join(process.inputs) or "none"
            remedy = did_you_mean(name, process.inputs, otherwise=f"Inputs of this process: {declared}.")
            problems.append(
                Problem(f'process "{process.name}" has no such input', field=f"inputs.{name}", remedy=remedy)
            )
    for name, declared_input in process.inputs.items():
        field = f"inputs.{name}"
        if name not in given:
            if declared_input.is_required:
                remedy = f"Give {_KINDS[declared_input.type]}, for example `--input {name}=…`."
                problems.append(Problem("this input is required", field=field, remedy=remedy))
        elif not _fits(given[name], declared_input.type) and not (
            given[name] is None and not declared_input.is_required
        ):
            problems.append(Problem(f"must be {_KINDS[declared_input.type]}, not {_shown(given[name])}", field=field))
    if problems:
        raise ProcessError(tuple(problems))
    return {name: given.get(name, declared.default) for name, declared in process.inputs.items()}


def content_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of the canonical JSON, as 64 hexadecimal digits. Raises ProcessError for what is not JSON-able."""
    try:
        return sha256(canonical_json(document).encode()).hexdigest()
    except (TypeError, ValueError, RecursionError) as error:
        remedy = "Use text, numbers, true, false, null, lists and mappings only."
        raise ProcessError((Problem(f"the process holds a value that JSON cannot: {error}", remedy=remedy),)) from None


def too_deep(value: object, *, limit: int = MAX_DEPTH) -> bool:
    """Whether lists and mappings are nested more than `limit` deep."""
    layer = [value] if isinstance(value, _CONTAINERS) else []
    for _ in range(limit):
        layer = [
            child
            for node in layer
            for child in (node.values() if isinstance(node, dict) else node)
            if isinstance(child, _CONTAINERS)
        ]
        if not layer:
            return False
    return bool(layer)


_CONTAINERS = (dict, list, tuple)
_RENAME = "Rename all but one of them."

_KINDS: Mapping[str, str] = {
    "string": "a string",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "array": "a list",
    "object": "a mapping",
    "any": "any value",
}


def _fits(value: object, kind: InputType) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "boolean":
            return isinstance(value, bool)
        case "array":
            return isinstance(value, list | tuple)
        case "object":
            return isinstance(value, Mapping)
        case "any":
            return True


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _shown(value: object) -> str:
    """A value as a person wrote it, shortened."""
    match value:
        case None:
            return "null"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case str():
            return json.dumps(value if len(value) <= 60 else f"{value[:60]}…", ensure_ascii=False)
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 10**40:
            return "a number that long"
    return repr(value)[:80]


def _problem(detail: ErrorDetails, document: Mapping[str, Any], file: str | None) -> Problem:
    """One of pydantic's errors in our own words, with the task named by its id or else by its number."""
    path = tuple(step for step in detail["loc"] if step != "[key]")
    message, remedy = _wording(detail, path)
    if field := detail.get("ctx", {}).get("field"):
        path = (*path, field)
    task: str | None = None
    if len(path) >= 2 and path[0] == "tasks":
        tasks = document["tasks"]
        entry = tasks[int(path[1])] if isinstance(tasks, list | tuple) else None
        id_ = entry.get("id") if isinstance(entry, Mapping) else None
        task = id_ if isinstance(id_, str) and id_ else f"#{int(path[1]) + 1}"
        path = path[2:]
    return Problem(message, file, task=task, field=".".join(map(str, path)) or None, remedy=remedy)


def _wording(detail: ErrorDetails, path: tuple[int | str, ...]) -> tuple[str, str | None]:
    value = detail["input"]
    context = detail.get("ctx", {})
    match detail["type"]:
        case "missing":
            return "this field is required", None
        case "extra_forbidden":
            keys = _keys(_model_at(path[:-1]))
            return "there is no such field", did_you_mean(
                str(path[-1]), keys, otherwise=f"Fields here: {', '.join(keys)}."
            )
        case "string_type":
            remedy = f'Put it in quotes: "{_shown(value)}".' if isinstance(value, int | float) else None
            return f"must be a string, not {_shown(value)}", remedy
        case "literal_error":
            remedy = did_you_mean(value, re.findall(r"'(.+?)'", context["expected"])) if isinstance(value, str) else ""
            return f"must be one of {context['expected']}, not {_shown(value)}", remedy or None
        case "string_pattern_mismatch":
            return f"{_shown(value)} holds one of [ ] / or a control character, which ids must not", None
        case "string_too_short":
            return "must not be empty", None
        case "string_too_long":
            return f"is longer than {context['max_length']} characters", None
        case "comagent":
            return detail["msg"], None
        case kind if kind in _MUST_BE:
            return f"must be {_MUST_BE[kind]}, not {_shown(value)}", None
    return f"{detail['msg'].replace('Input should be', 'must be')}, not {_shown(value)}", None


_MUST_BE: Mapping[str, str] = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}


def _model_at(path: tuple[int | str, ...]) -> type[_Model]:
    match path:
        case (*_, "retry"):
            return Retry
        case ("tasks", _):
            return Task
        case ("inputs", _):
            return Input
        case ("defaults",):
            return Defaults
    return Process


def _keys(model: type[_Model]) -> list[str]:
    """The keys that a person may write there."""
    return [str(field.validation_alias or name) for name, field in model.model_fields.items()]
