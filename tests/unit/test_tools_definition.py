"""From a function to a tool: its schema, its kind, the check of its arguments, and what is refused."""

import asyncio
import functools
import json
import math
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Optional, Union

import jsonschema
import pytest
from pydantic import BaseModel, Field

from comagent.errors import ArgumentError, ToolDefinitionError
from comagent.tools import Tool, ToolContext, ToolSpec, tool
from comagent.tools.loading import load
from comagent.tools.registry import check_arguments

CONTEXT = ToolContext("job", "task", 2, (1, 1), "key")


class Point(BaseModel):
    x: float
    y: float = 0.0


@dataclass
class Size:
    width: int
    height: int


class Opaque:
    """A type that pydantic and JSON know nothing of."""


@tool
def count_words(text: str) -> int:
    """Count the words.

    Words are what white space separates.
    """
    return len(text.split())


@tool(name="shapes.area", cost="cheap", effects="none", summary="How large it is")
def area(size: Size, at: Point, unit: Literal["m", "cm"] = "m") -> dict[str, Any]:
    return {"area": size.width * size.height, "x": at.x, "unit": unit}


@tool
async def double(number: int) -> int:
    return 2 * number


@tool
async def moved(point: Point) -> Point:
    return Point(x=point.x + 1)


@tool
def with_context(value: int, context: ToolContext) -> list[Any]:
    return [value, context.attempt]


@tool
def with_optional_context(value: int, context: "ToolContext | None" = None) -> list[Any]:
    return [value, context and context.attempt]


@tool
def text_annotations(limit: "int", tags: "list[str]" = []) -> "list[str]":  # noqa: B006
    return tags[:limit]


@tool
def open_ended(first, **others):  # type: ignore[no-untyped-def]
    return {"first": first, **others}


@tool
def unions(
    a: Optional[int],  # noqa: UP045  # as users write it
    b: Union[int, str],  # noqa: UP007
    c: Annotated[int, Field(ge=0, description="How many")] = 1,
    d: int = None,  # type: ignore[assignment]  # noqa: RUF013
) -> list[Any]:
    return [a, b, c, d]


@tool
def takes_opaque(thing: Opaque) -> Opaque:
    return thing


@tool
def makes_point(x: float) -> Point:
    return Point(x=x)


@tool
def raw(value):  # type: ignore[no-untyped-def]
    return value


shout = functools.partial(raw, value="HEY")
thrice = lambda number: 3 * number  # noqa: E731


class Greeter:
    def __init__(self, greeting: str) -> None:
        self.greeting = greeting

    def greet(self, name: str) -> str:
        return f"{self.greeting}, {name}"

    def __call__(self, name: str) -> str:
        return self.greet(name)


greet = Greeter("Hello").greet
greeter = Greeter("Good morning")


def test_a_declared_function_is_called_directly_as_before() -> None:
    assert count_words("to be or not") == 4


def test_the_summary_is_the_first_line_of_the_docstring() -> None:
    spec = Tool(count_words).spec
    assert (spec.name, spec.summary, spec.kind) == ("count_words", "Count the words.", "thread")
    assert "white space" in spec.description


def test_options_of_the_decorator_are_in_the_spec() -> None:
    spec = Tool(area).spec
    assert (spec.name, spec.summary, spec.cost, spec.effects) == ("shapes.area", "How large it is", "cheap", "none")


def test_an_async_function_is_of_kind_async_and_gives_an_awaitable() -> None:
    declared = Tool(double)
    assert declared.spec.kind == "async"
    assert asyncio.run(declared.call({"number": 4}, CONTEXT)) == 8


@pytest.mark.parametrize("function", [count_words, area, double, with_context, open_ended, unions, takes_opaque])
def test_a_spec_survives_its_document(function: Any) -> None:
    spec = Tool(function).spec
    assert ToolSpec.from_document(json.loads(json.dumps(spec.to_document()))) == spec
    jsonschema.Draft202012Validator.check_schema(spec.parameters)


def test_parameters_become_a_json_schema() -> None:
    assert Tool(text_annotations).spec.parameters == {
        "type": "object",
        "properties": {
            "limit": {"type": "integer"},
            "tags": {"type": "array", "items": {"type": "string"}, "default": []},
        },
        "required": ["limit"],
        "additionalProperties": False,
    }


def test_the_schema_of_models_and_dataclasses_refers_to_definitions() -> None:
    parameters = Tool(area).spec.parameters
    assert set(parameters["$defs"]) == {"Point", "Size"}
    jsonschema.validate({"size": {"width": 1, "height": 2}, "at": {"x": 1}}, parameters)
    assert parameters["properties"]["unit"]["enum"] == ["m", "cm"]


def test_models_and_dataclasses_are_made_of_plain_arguments() -> None:
    value = Tool(area).call({"size": {"width": 2, "height": 3}, "at": {"x": 1}}, CONTEXT)
    assert value == {"area": 6, "x": 1.0, "unit": "m"}


def test_a_model_as_result_becomes_plain_data_with_a_schema() -> None:
    declared = Tool(makes_point)
    assert declared.call({"x": 1}, CONTEXT) == {"x": 1.0, "y": 0.0}
    assert declared.spec.returns is not None
    assert set(declared.spec.returns["properties"]) == {"x", "y"}
    assert asyncio.run(Tool(moved).call({"point": {"x": 1}}, CONTEXT)) == {"x": 2.0, "y": 0.0}


def test_a_type_without_json_form_passes_between_tools_as_it_is() -> None:
    thing, declared = Opaque(), Tool(takes_opaque)
    assert declared.call({"thing": thing}, CONTEXT) is thing
    assert declared.spec.returns is None
    with pytest.raises(ArgumentError, match="should be an instance of Opaque"):
        declared.call({"thing": 1}, CONTEXT)


def test_the_context_is_injected_and_is_no_part_of_the_schema() -> None:
    for function in (with_context, with_optional_context):
        declared = Tool(function)
        assert list(declared.spec.parameters["properties"]) == ["value"]
        assert declared.call({"value": 1}, CONTEXT) == [1, 2]
        with pytest.raises(ArgumentError, match='no parameter "context"'):
            declared.call({"value": 1, "context": 1}, CONTEXT)
    assert with_optional_context(1) == [1, None]


def test_further_named_arguments_are_allowed_where_the_function_takes_them() -> None:
    declared = Tool(open_ended)
    assert declared.spec.parameters["additionalProperties"] is True
    assert declared.call({"first": 1, "second": 2}, CONTEXT) == {"first": 1, "second": 2}
    with pytest.raises(ArgumentError, match='parameter "first" is missing'):
        declared.call({"second": 2}, CONTEXT)


def test_unions_options_and_constraints_are_checked() -> None:
    declared = Tool(unions)
    assert declared.call({"a": None, "b": "x", "d": None}, CONTEXT) == [None, "x", 1, None]
    assert declared.spec.parameters["properties"]["c"]["description"] == "How many"
    with pytest.raises(ArgumentError, match='"c" should be greater than or equal to 0, given -1'):
        declared.call({"a": 1, "b": 1, "c": -1}, CONTEXT)


@pytest.mark.parametrize(
    ("function", "arguments", "message"),
    [
        (count_words, {}, 'tool "count_words": parameter "text" is missing. It takes: text.'),
        (count_words, {"txet": "a"}, 'there is no parameter "txet" \\(did you mean "text"\\?\\)'),
        (count_words, {"text": 1}, '"text" should be a valid string, given 1'),
        (raw, {}, 'parameter "value" is missing'),
        (raw, {"value": 1, "valu": 2}, 'there is no parameter "valu"'),
        (area, {"size": {"width": 1}, "at": {"x": 1}}, '"size.height" Field required|"size.height" .*required'),
        (text_annotations, {"limit": 1, "tags": ["a", 1]}, '"tags\\[1\\]" should be a valid string'),
    ],
)
def test_wrong_arguments_name_the_tool_the_parameter_and_what_fits(
    function: Any, arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        Tool(function).call(arguments, CONTEXT)


def test_arguments_are_not_changed_by_a_call() -> None:
    arguments = {"value": 1}
    Tool(with_context).call(arguments, CONTEXT)
    assert arguments == {"value": 1}


def test_a_type_error_of_the_function_itself_passes_through() -> None:
    with pytest.raises(TypeError, match="unsupported operand"):
        Tool(thrice_of_none).call({"number": 1}, CONTEXT)


@tool
def thrice_of_none(number: int) -> int:
    return number + None  # type: ignore[operator]


def test_arguments_are_checked_before_anything_runs() -> None:
    spec = Tool(area).spec
    problems = check_arguments(spec, {"size": "${tasks.a}", "unit": "km", "att": 1}, dynamic={"size"})
    assert len(problems) == 3
    assert any(problem.startswith("\"unit\" should be 'm' or 'cm'") for problem in problems)
    assert 'parameter "at" is missing' in problems
    assert check_arguments(spec, {"size": "${x}", "at": "${y}"}, dynamic={"size", "at"}) == []
    assert check_arguments(Tool(raw).spec, {}, dynamic={"value"}) == []


@pytest.mark.parametrize(
    ("function", "arguments", "value"),
    [
        (shout, {}, "HEY"),
        (thrice, {"number": 2}, 6),
        (greet, {"name": "Ada"}, "Hello, Ada"),
        (greeter, {"name": "Ada"}, "Good morning, Ada"),
    ],
    ids=["partial", "lambda", "bound method", "instance"],
)
def test_what_has_a_name_in_its_module_is_found_again(function: Any, arguments: dict[str, Any], value: Any) -> None:
    code = Tool(function).spec.code
    assert load(code).call(arguments, CONTEXT) == value


def make_adder(summand: int) -> Any:
    def add(number: int) -> int:
        return number + summand

    return add


@pytest.mark.parametrize(
    "function", [make_adder(1), lambda x: x, Greeter("Hi").greet], ids=["closure", "lambda", "method"]
)
def test_what_has_no_name_in_its_module_is_refused_with_a_remedy(function: Any) -> None:
    with pytest.raises(ToolDefinitionError, match=r"no other process finds it\. Define it with `def` at the top level"):
        Tool(function)


def positional_only(a: int, /) -> int:
    return a


def variadic(*numbers: int) -> int:
    return sum(numbers)


def generator() -> Any:
    yield 1


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (positional_only, 'parameter "a" is positional-only'),
        (variadic, r"Take a list instead: `numbers: list\[...\]`"),
        (generator, "it is a generator"),
        (Greeter, "it is a class, not a function"),
        (math.sqrt, "positional-only"),
        (3, "it is of type int, not a function"),
    ],
)
def test_what_can_never_work_is_refused_where_it_is_declared(function: Any, message: str) -> None:
    with pytest.raises(ToolDefinitionError, match=message):
        tool(function)


def test_unknown_kinds_and_contradictory_ones_are_refused() -> None:
    with pytest.raises(ToolDefinitionError, match="It is one of: inline, async, thread, process"):
        tool(kind="fast")(make_adder(1))  # type: ignore[call-overload]
    with pytest.raises(ToolDefinitionError, match='a plain `def` but declares kind "async"'):
        tool(kind="async")(make_adder(1))
    with pytest.raises(ToolDefinitionError, match='an `async def` but declares kind "thread"'):
        tool(kind="thread")(double)


def unreadable(value: "Missing") -> None:  # type: ignore[name-defined]  # noqa: F821
    del value


def test_an_annotation_that_cannot_be_read_is_named() -> None:
    with pytest.raises(ToolDefinitionError, match=r"'Missing' is not defined.*TYPE_CHECKING"):
        Tool(unreadable)
