"""The Common Expression Language: compile and evaluate, with the library's messages put into plain words.

Evaluation ends: CEL has no loops but those over a list, and the library stops an expression after 10,000 steps of them.
What `map` and `filter` take grows with the square of the list, though: a thousand items are milliseconds, ten thousand
are seconds.
"""

import math
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import cache, lru_cache
from typing import Any

from cel_expr_python import cel

from comagent.errors import ExpressionError
from comagent.expressions.reference import ROOTS
from comagent.nearest import did_you_mean

__all__ = ["MissingError", "check", "evaluate"]

_FUNCTIONS = (
    *("size", "string", "int", "uint", "double", "bool", "timestamp", "duration", "type", "dyn"),
    *("has", "all", "exists", "exists_one", "map", "filter"),
    *("contains", "startsWith", "endsWith", "matches"),
)
_TYPES = {"int64": "int", "uint64": "uint", "null_type": "null"}
_PYTHON = {
    "len": "Write size(…).",
    "str": "Write string(…).",
    "float": "Write double(…).",
    "None": "Write null.",
    "True": "Write true.",
    "False": "Write false.",
}


class MissingError(Exception):
    """A key, an index or a field is not there. `key` is what was looked for, where the library says it."""

    def __init__(self, problem: str, key: str | None = None) -> None:
        super().__init__(problem, key)
        self.problem = problem
        self.key = key


def check(source: str) -> None:
    """Raise ExpressionError if `source` is not an expression, or uses a name or a function that does not exist."""
    _compile(source)


def evaluate(source: str, data: Mapping[str, Any]) -> Any:
    """The value of `source`, as JSON knows values: a timestamp as RFC 3339 text, a duration as seconds.

    `data` maps roots to dicts, lists and scalars. Raises ExpressionError, or MissingError for what is not in `data`.
    """
    try:
        result = _compile(source).eval(data=data)
    except RuntimeError as error:
        raise _runtime_error(source, str(error)) from None
    if result.type() == cel.Type.ERROR:
        raise _runtime_error(source, result.value())
    return _jsonable(source, result.plain_value())


@cache
def _environment() -> cel.Env:
    return cel.NewEnv(variables=dict.fromkeys(ROOTS, cel.Type.DYN))


@lru_cache(maxsize=4096)
def _compile(source: str) -> cel.Expression:
    try:
        return _environment().compile(source)
    except (RuntimeError, UnicodeError) as error:
        raise _compile_error(source, str(error)) from None


def _jsonable(source: str, value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            if math.isfinite(value):
                return value
            raise ExpressionError(source, f"the result holds {value}, which is no number that can be stored")
        case list():
            return [_jsonable(source, item) for item in value]
        case dict():
            for key in value:
                if not isinstance(key, str):
                    raise ExpressionError(
                        source, f"the result has the key {key!r}; keys must be text", "Use string(…)."
                    )
            return {key: _jsonable(source, item) for key, item in value.items()}
        case datetime():
            return value.isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case bytes() | bytearray():
            raise ExpressionError(source, "the result holds bytes, which JSON does not know", "Use string(…).")
    raise ExpressionError(source, f"the result holds {value}, which is no value", "Use string(…) or compare it.")


def _compile_error(source: str, text: str) -> ExpressionError:
    if "recursion" in text:
        return ExpressionError(source, "it is nested too deeply", "Split it, or do this in a tool.")
    first = re.search(r"<input>:(\d+):(\d+): (.*)", text)
    if first is None:
        return ExpressionError(source, f"it cannot be read: {_bare(text)}")
    line, column, message = int(first[1]), int(first[2]), first[3].removesuffix(" [INVALID_ARGUMENT]")
    if undeclared := re.match(r"undeclared reference to '([^'.]*)", message):
        name = undeclared[1]
        known = (*ROOTS, *_FUNCTIONS)
        otherwise = f"Values start with {', '.join(ROOTS[:-1])} or {ROOTS[-1]}; text needs quotes."
        return ExpressionError(
            source,
            f'there is no name or function "{name}"',
            _PYTHON.get(name) or did_you_mean(name, known, otherwise=otherwise),
        )
    if overload := re.match(r"found no matching overload for '(.+)' applied to '(?:.+\.)?\((.*)\)'", message):
        return _overload_error(source, overload[1], overload[2])
    where = f"at character {column}" if line == 1 else f"in line {line} at character {column}"
    ends = "<EOF>" in message
    if re.search(r"\b(and|or|not|if|else)\b", re.sub(r"'.*?'|\".*?\"", "", source)):
        remedy = "Expressions are CEL: write &&, ||, ! and `condition ? a : b`."
    elif "recognition error at: '=" in message:
        remedy = "Write == to compare."
    else:
        remedy = "Is a value or a bracket missing?" if ends else ""
    if ends:
        return ExpressionError(source, "it ends too early", remedy)
    problem = message.removeprefix("Syntax error: ").partition(" expecting ")[0]
    return ExpressionError(source, f"it cannot be read {where}: {problem}", remedy)


def _overload_error(source: str, operation: str, types: str) -> ExpressionError:
    """An operation was given values of types that it does not take: `_+_` and `double, int64`, for example."""
    if method := re.fullmatch(r"\((.+)\)\.(\w+)", operation):
        types, operation = ", ".join(filter(None, (method[1], types))), method[2]
    shown = operation.replace("_", "") if re.search(r"\W", operation) else operation
    kinds = [_TYPES.get(kind, kind) for kind in types.split(", ")] if types else []
    if operation in ("_&&_", "_||_", "!_", "<jump_condition>", "_?_:_"):
        shown = "?:" if "jump" in operation else shown
        return ExpressionError(source, f"`{shown}` takes only true or false", "Compare the value, for example `… > 0`.")
    if "double" in kinds and {"int", "uint"} & set(kinds):
        remedy = "Numbers of different kinds are not mixed: write double(…) around the whole number."
    elif shown == "+" and "string" in kinds:
        remedy = "Write string(…) around what is not text."
    else:
        remedy = ""
    return ExpressionError(source, f"`{shown}` does not take ({', '.join(kinds)})", remedy)


def _runtime_error(source: str, text: str) -> ExpressionError | MissingError:
    problem = _bare(text)
    if found := re.match(r"No matching overloads found : (.+?)(?:\((.*)\))?$", problem):
        return _overload_error(source, found[1], found[2] or "")
    if found := re.match(r'Key not found in map : "?(.*?)"?$', problem):
        return MissingError(f'there is no key "{found[1]}"', found[1])
    if found := re.match(r"Index error: index=(-?\d+) size=(\d+)", problem):
        return MissingError(f"there is no item {found[1]} in a list of {found[2]}", found[1])
    if found := re.match(r'No value with name "(\w+)"', problem):
        return MissingError(f"there is no `{found[1]}` here")
    if "SELECT to non-message" in problem:
        return MissingError("a key is read from something that is no mapping")
    if "Iteration budget" in problem:
        return ExpressionError(source, "it goes through too many items (10,000 is the limit)", "Do this in a tool.")
    if found := re.match(r"(?:Non-CEL value type|Integer value .*? out of range) for '?(.*)", problem):
        return ExpressionError(source, f"it reads a value that expressions cannot hold: {found[1]}", "Use a tool.")
    return ExpressionError(source, problem)


def _bare(text: str) -> str:
    """The library's message without its status codes, on one line."""
    message = re.sub(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$", "", text.strip())
    return " ".join(message.split())
