"""What a tool is: a callable with a schema, a kind, and an address at which any process finds it again."""

import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import FunctionType
from typing import Any, Literal, TypeVar, cast, get_args, overload

from comagent.errors import ToolDefinitionError
from comagent.tools.recording import as_written, recordable
from comagent.tools.schema import Signature, parameters
from comagent.tools.source import Code, locate

__all__ = ["Code", "Cost", "Effects", "Kind", "Options", "Tool", "ToolContext", "ToolSpec", "options_of", "tool"]

Kind = Literal["inline", "async", "thread", "process"]
"""Where it runs: in the agent's event loop for microseconds, as a coroutine, in a thread, in a process of its own."""
Cost = Literal["cheap", "unknown", "costly"]
"""`cheap`: about a millisecond or less, so that many run as one unit. `costly`: always a unit of its own."""
Effects = Literal["none", "some", "once"]
"""`none`: pure. `some`: may run again after a crash. `once`: must not be repeated without asking."""

_MARK = "__comagent_tool__"
_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class ToolSpec:
    """What is known of a tool without importing it."""

    name: str
    summary: str
    """One line."""
    description: str
    parameters: dict[str, Any]
    """JSON schema of an object, one property per parameter."""
    returns: dict[str, Any] | None
    """JSON schema of the result; None where nothing is known."""
    kind: Kind
    cost: Cost
    effects: Effects
    code: Code

    def to_document(self) -> dict[str, Any]:
        """JSON-like data from which `from_document` makes an equal value."""
        document = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return document | {"code": self.code._asdict()}

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> "ToolSpec":
        return cls(**document | {"code": Code(**document["code"])})


@dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know about its run. It is given to the parameter that is annotated with this class."""

    job_id: str
    task: str
    attempt: int
    """Counted from 1."""
    epoch: tuple[int, int]
    idempotency_key: str
    """The same in every attempt at this task: for services that refuse to do a thing twice."""
    deadline_ms: int | None = None
    """Milliseconds since 1970, UTC; None where the task has no timeout."""


@dataclass(frozen=True, slots=True)
class Options:
    """What `@tool` was told."""

    name: str | None = None
    kind: Kind | None = None
    cost: Cost = "unknown"
    effects: Effects = "some"
    summary: str | None = None


class Tool:
    """A tool that can be called, with its `spec`."""

    __slots__ = ("_convert", "_injected", "_run", "_signature", "function", "spec")

    def __init__(self, function: Callable[..., Any], *, code: Code | None = None) -> None:
        options = options_of(function) or Options()
        name = options.name or (code.qualname if code else _own_name(function))
        _check(function, options, name)
        if code is None:
            code = locate(function, name=name)
        self.function = function
        self._run = as_written(function)
        self._signature = Signature(function, name=name, context_type=ToolContext)
        self._injected = self._signature.injected
        self._convert = self._signature.converts
        description = "" if isinstance(function, functools.partial) else inspect.getdoc(function) or ""
        self.spec = ToolSpec(
            name=name,
            summary=options.summary or description.split("\n", 1)[0],
            description=description,
            parameters=self._signature.parameters,
            returns=self._signature.returns,
            kind=options.kind or ("async" if _is_async(function) else "thread"),
            cost=options.cost,
            effects=options.effects,
            code=code,
        )

    @property
    def wants_context(self) -> bool:
        """Whether a parameter takes the `ToolContext`."""
        return self._injected is not None

    def call(self, arguments: dict[str, Any], context: ToolContext | None) -> Any:
        """The result, or an awaitable of it where the kind is `async`. `arguments` is not changed.

        Arguments that do not fit raise `ArgumentError`. Whatever the function itself raises passes through.
        """
        bound = self._signature.bind(arguments)
        if self._injected is not None:
            bound = {**bound, self._injected: context}
        value = self._run(**bound)
        if not self._convert:
            return value
        return self._converted(value) if self.spec.kind == "async" else self._signature.result(value)

    def problems(self, arguments: dict[str, Any], *, dynamic: set[str]) -> list[str]:
        """What is wrong with these arguments, one clause each. Those in `dynamic` are there, their values unknown."""
        return self._signature.problems(arguments, dynamic=dynamic)

    async def _converted(self, value: Awaitable[Any]) -> Any:
        return self._signature.result(await value)


@overload
def tool(function: _Function, /) -> _Function: ...


@overload
def tool(
    *,
    name: str | None = None,
    kind: Kind | None = None,
    cost: Cost = "unknown",
    effects: Effects = "some",
    summary: str | None = None,
) -> Callable[[_Function], _Function]: ...


def tool(
    function: _Function | None = None,
    /,
    *,
    name: str | None = None,
    kind: Kind | None = None,
    cost: Cost = "unknown",
    effects: Effects = "some",
    summary: str | None = None,
) -> _Function | Callable[[_Function], _Function]:
    """Declare a function a tool. It can be called directly as before; inside a `@comagent.process` a call is a step.

    Processes name it by `name`, or by the function's own name. An `async def` is of kind `async`, any other function
    of kind `thread` unless `kind` says otherwise. The summary is the first line of the docstring unless it is given.
    `ToolDefinitionError` for what can never work: a class, a generator, parameters that cannot be given by name.
    """
    options = Options(name=name, kind=kind, cost=cost, effects=effects, summary=summary)

    def declare(declared: _Function) -> _Function:
        shown = name or _own_name(declared)
        _check(declared, options, shown)
        parameters(declared, shown)
        if isinstance(declared, FunctionType):
            declared = cast(_Function, recordable(declared))
        try:
            setattr(declared, _MARK, options)
        except AttributeError:
            raise ToolDefinitionError(
                shown, f"a {type(declared).__name__} cannot be declared a tool", "Wrap it in a function."
            ) from None
        return declared

    return declare if function is None else declare(function)


def options_of(function: object) -> Options | None:
    """What `@tool` was told about this function; None if it was not declared."""
    options = getattr(function, _MARK, None)
    return options if isinstance(options, Options) else None


def _own_name(function: object) -> str:
    return str(getattr(function, "__name__", type(function).__name__))


def _check(function: object, options: Options, name: str) -> None:
    for field, value, known in (
        ("kind", options.kind, get_args(Kind)),
        ("cost", options.cost, get_args(Cost)),
        ("effects", options.effects, get_args(Effects)),
    ):
        if value is not None and value not in known:
            raise ToolDefinitionError(name, f'{field} "{value}" is unknown', f"It is one of: {', '.join(known)}.")
    if inspect.isclass(function):
        raise ToolDefinitionError(name, "it is a class, not a function", "Name a function, or write one that uses it.")
    if not callable(function):
        raise ToolDefinitionError(name, f"it is of type {type(function).__name__}, not a function", "Name a function.")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ToolDefinitionError(name, "it is a generator, and a tool returns one value", "Return a list.")
    if options.kind is not None and (options.kind == "async") != _is_async(function):
        written = "an `async def`" if _is_async(function) else "a plain `def`"
        raise ToolDefinitionError(name, f'it is {written} but declares kind "{options.kind}"', "Leave the kind out.")


def _is_async(function: Callable[..., Any]) -> bool:
    function = as_written(function)
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
