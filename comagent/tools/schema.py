"""From a function's signature to JSON schemas, and to a check of its arguments."""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any, NotRequired, Union

from pydantic import ConfigDict, PydanticUserError, TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import PydanticSerializationError, core_schema, to_jsonable_python
from typing_extensions import TypedDict

from comagent.errors import ArgumentError, ToolDefinitionError, ValueNotStorableError
from comagent.nearest import did_you_mean

__all__ = ["Signature"]

_PLAIN = (Any, object, None, type(None), bool, int, float, str, list, dict)
_GENERIC = (list, dict, Union, types.UnionType)


class _Strict(GenerateJsonSchema):
    """Pydantic's generator without the titles, which only repeat the names."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class _Lenient(_Strict):
    """A type without a JSON form (a table, say) is accepted as it comes from another task: its schema is empty."""

    def handle_invalid_for_json_schema(self, schema: core_schema.CoreSchema, error_info: str) -> JsonSchemaValue:
        return {}


class Signature:
    """What a function takes and returns; made once per tool.

    `ToolDefinitionError` if the function cannot be called with named arguments, or an annotation means nothing.
    """

    __slots__ = (
        "_name",
        "_names",
        "_open",
        "_order",
        "_required",
        "_results",
        "_validator",
        "injected",
        "parameters",
        "returns",
    )

    def __init__(self, function: Callable[..., Any], *, name: str, context_type: type) -> None:
        self._name = name
        hints = _hints(function, name)
        fields: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        self._open = False
        self.injected: str | None = None
        """The parameter that takes the context; no part of the schema."""
        for parameter in parameters(function, name):
            hint = hints.get(parameter.name, Any)
            if parameter.kind is parameter.VAR_KEYWORD:
                self._open = True
            elif hint is context_type or context_type in typing.get_args(hint):
                if self.injected is not None:
                    raise ToolDefinitionError(
                        name, f'both "{self.injected}" and "{parameter.name}" take the context', "Keep one of them."
                    )
                self.injected = parameter.name
            elif parameter.default is parameter.empty:
                fields[parameter.name] = hint
            else:
                # A default of None says that None may be given, whatever the annotation says.
                fields[parameter.name] = NotRequired[_or_none(hint) if parameter.default is None else hint]
                defaults[parameter.name] = parameter.default
        self._order = tuple(fields)
        self._names = frozenset(fields)
        self._required = self._names - defaults.keys()
        adapter = _arguments_adapter(fields, open_ended=self._open, name=name)
        is_plain = all(hints.get(field, Any) in (Any, object) for field in fields)
        self._validator = None if is_plain else adapter.validator.validate_python
        self.parameters = _parameters_schema(adapter, defaults, open_ended=self._open)
        """JSON schema of the arguments: an object."""
        results, self.returns = _results(hints.get("return", Any))
        """JSON schema of the result; None where the annotation says nothing that JSON can say."""
        self._results = None if _is_plain(hints.get("return", Any)) else results

    @property
    def converts(self) -> bool:
        """Whether results need `result`: the annotation promises a model, a dataclass, a date or the like."""
        return self._results is not None

    def bind(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The arguments to call with, coerced to the annotations. Raises `ArgumentError`. Defaults are left out."""
        if self._validator is None:
            if arguments.keys() == self._names or self._fits(arguments):
                return arguments
        else:
            try:
                return self._validator(arguments)  # type: ignore[no-any-return]  # the validator of a TypedDict
            except ValidationError as error:
                problems = self._reworded(error, ())
                raise ArgumentError(self._name, "; ".join(problems), self._usage()) from None
        raise ArgumentError(self._name, "; ".join(self.problems(arguments)), self._usage())

    def problems(self, arguments: Mapping[str, Any], *, dynamic: Collection[str] = ()) -> list[str]:
        """What is wrong with these arguments, one clause each. Those in `dynamic` are there, their values unknown."""
        given = {**arguments, **dict.fromkeys(dynamic)}
        if self._validator is not None:
            try:
                self._validator(given)
            except ValidationError as error:
                return self._reworded(error, dynamic)
            return []
        missing = [_missing(field) for field in self._order if field in self._required and field not in given]
        surplus = [] if self._open else [self._surplus(field) for field in given if field not in self._names]
        return missing + surplus

    def result(self, value: Any) -> Any:
        """The result as JSON-like data, for annotations where `converts` is true."""
        if self._results is None:
            return value
        try:
            return self._results.dump_python(value, mode="json", warnings=False)
        except PydanticSerializationError as error:
            raise ValueNotStorableError(self._name, str(error), "Return what JSON can express.") from error

    def _fits(self, arguments: dict[str, Any]) -> bool:
        return arguments.keys() >= self._required and (self._open or arguments.keys() <= self._names)

    def _reworded(self, error: ValidationError, dynamic: Collection[str]) -> list[str]:
        problems = []
        for detail in error.errors(include_url=False, include_context=False):
            field, *rest = detail["loc"]
            if detail["type"] == "extra_forbidden" and not rest:
                problems.append(self._surplus(str(field)))
            elif detail["type"] == "missing" and not rest:
                problems.append(_missing(str(field)))
            elif field not in dynamic:
                place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in rest)
                problems.append(f'"{field}{place}" {_clause(detail["msg"])}, given {_shortened(detail["input"])}')
        return problems

    def _surplus(self, field: str) -> str:
        remedy = did_you_mean(field, self._names)
        return f'there is no parameter "{field}"' + (f" ({remedy[0].lower()}{remedy[1:]})" if remedy else "")

    def _usage(self) -> str:
        if not self._names:
            return "It takes no arguments."
        shown = [field if field in self._required else f"{field} (optional)" for field in self._order]
        return f"It takes: {', '.join(shown)}."


def parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    """The parameters, all of which can be given by name; else `ToolDefinitionError` says which cannot."""
    try:
        found = list(inspect.signature(function).parameters.values())
    except (ValueError, TypeError):
        raise ToolDefinitionError(
            name, "Python cannot tell its parameters", "Wrap it in a function with named parameters."
        ) from None
    for parameter in found:
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise ToolDefinitionError(
                name,
                f'parameter "{parameter.name}" is positional-only, and arguments of tools are given by name',
                "Remove the `/` from its signature, or wrap it in a function with named parameters.",
            )
        if parameter.kind is parameter.VAR_POSITIONAL:
            raise ToolDefinitionError(
                name,
                f'parameter "*{parameter.name}" takes positional arguments, and arguments of tools are given by name',
                f"Take a list instead: `{parameter.name}: list[...]`.",
            )
    return found


def _hints(function: Callable[..., Any], name: str) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    try:
        return typing.get_type_hints(function, include_extras=True)
    except TypeError:
        return {}  # a built-in without annotations
    except (NameError, AttributeError, SyntaxError) as error:
        raise ToolDefinitionError(
            name,
            f"an annotation cannot be read: {error}",
            "Names in annotations must be importable when the tool runs, not only under `TYPE_CHECKING`.",
        ) from error


def _arguments_adapter(fields: dict[str, Any], *, open_ended: bool, name: str) -> TypeAdapter[Any]:
    make: Any = TypedDict
    arguments = make("Arguments", fields)
    arguments.__pydantic_config__ = ConfigDict(extra="allow" if open_ended else "forbid", arbitrary_types_allowed=True)
    try:
        return TypeAdapter(arguments)
    except (PydanticUserError, NameError, TypeError) as error:
        raise ToolDefinitionError(
            name,
            f"an annotation is no type that arguments can be checked by: {_first_line(error)}",
            "Annotate it otherwise.",
        ) from error


def _parameters_schema(adapter: TypeAdapter[Any], defaults: Mapping[str, Any], *, open_ended: bool) -> dict[str, Any]:
    generated = adapter.json_schema(schema_generator=_Lenient)
    properties = {field: dict(schema) for field, schema in generated.get("properties", {}).items()}
    for field, default in defaults.items():
        try:
            properties[field]["default"] = to_jsonable_python(default)
        except PydanticSerializationError:
            continue  # a default without a JSON form is still a default: it is only not shown
    schema = {
        "type": "object",
        "properties": properties,
        "required": generated.get("required", []),
        "additionalProperties": open_ended,
    }
    return schema | {"$defs": generated["$defs"]} if "$defs" in generated else schema


def _results(hint: Any) -> tuple[TypeAdapter[Any] | None, dict[str, Any] | None]:
    if hint in (Any, object):
        return None, None
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(hint)
        return adapter, adapter.json_schema(schema_generator=_Strict, mode="serialization")
    except (PydanticUserError, PydanticInvalidForJsonSchema, NameError, TypeError):
        return None, None  # a table, say: it is stored as it is


def _is_plain(hint: Any) -> bool:
    return hint in _PLAIN or (typing.get_origin(hint) in _GENERIC and all(map(_is_plain, typing.get_args(hint))))


def _or_none(hint: Any) -> Any:
    try:
        return hint if hint in (Any, object) else hint | None
    except TypeError:
        return hint  # no type at all, which is reported with the types that are none for pydantic


def _missing(field: str) -> str:
    return f'parameter "{field}" is missing'


def _clause(message: str) -> str:
    return message.removeprefix("Input ").replace("Value error, ", "is refused: ", 1)


def _shortened(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:79]}…"


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]
