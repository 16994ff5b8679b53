"""Tools that make text, and take it apart."""

import functools
import inspect
import itertools
import json
import re
import traceback
from collections.abc import Callable, Iterable, Iterator
from types import CodeType
from typing import Annotated, Any

from jinja2 import Environment, StrictUndefined, TemplateSyntaxError, nodes
from jinja2.exceptions import SecurityError
from jinja2.nodes import EvalContext
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer
from pydantic import Field
from typing_extensions import TypedDict

from comagent.errors import ArgumentError
from comagent.tools.base import tool

__all__ = ["RenderError", "findings", "join", "match", "render", "split", "truncate"]

_LONGEST = 2**20
_LONGEST_JOINED = 64 * 2**20
_MOST_STEPS = 100_000
_WIDEST = 9_999
_TOO_LONG = f"it makes more than {_LONGEST:,} characters of text"
_WIDE_FORMAT = re.compile(r"%[^a-zA-Z%]*(\d{5}|\*)|\{[^{}]*(:[^{}]*\d{5}|\{)")
_GROWING = frozenset(
    ("batch", "center", "expandtabs", "indent", "join", "ljust", "replace", "rjust", "slice", "wordwrap", "zfill")
)
"""Filters and methods of strings whose result may be much longer than what they are given."""
_FILE = "<template>"
"""What Jinja2 calls a template that is not from a file."""
_STEPS = "counted_steps"
_JOINED = "checked_length"


class RenderError(Exception):
    """A template cannot be read, uses something that is not there, or exceeds a limit."""


@tool(name="text.render", kind="thread", cost="cheap", effects="none")
def render(template: str, values: dict[str, Any] = {}) -> str:  # noqa: B006  # never changed: the sandbox refuses
    """Fill a Jinja2 template in with values.

    A name that is not among the values is an error, not an empty text. Templates reach nothing but the values; they may
    take 100,000 steps of loops and calls, and make 1 MiB of text.
    """
    sandbox = _Sandbox()
    try:
        compiled = sandbox.template_class.from_code(sandbox, _compiled(template), sandbox.make_globals(None))
        return "".join(_limited(compiled.generate(values)))
    except TemplateSyntaxError as error:
        raise RenderError(f"line {error.lineno} of the template: {error.message}") from None
    except Exception as error:  # whatever an expression in it can raise
        line = next((f.lineno for f in traceback.extract_tb(error.__traceback__)[::-1] if f.filename == _FILE), "?")
        raise RenderError(f"line {line} of the template: {error}") from error


class Check(TypedDict):
    what: str
    """The finding, if it is one: `disk / is 91 % full`."""
    value: float
    limit: float
    """A value above it is a finding."""
    advice: str


@tool(name="text.findings", kind="inline", cost="cheap", effects="none")
def findings(checks: list[Check]) -> list[str]:
    """Say what is wrong and what to do about it, a line for each check whose value is above its limit."""
    return [
        f"{check['what']} (limit {check['limit']:g}): {check['advice']}"
        for check in checks
        if check["value"] > check["limit"]
    ]


@tool(name="text.split", kind="inline", cost="cheap", effects="none")
def split(
    text: str,
    separator: Annotated[str, Field(min_length=1)] | None = None,
    *,
    limit: Annotated[int, Field(ge=1)] | None = None,
) -> list[str]:
    """Cut text at every separator, or into its words where there is none; into at most so many parts.

    The last part is the rest of the text where the limit leaves one.
    """
    return text.split(separator, -1 if limit is None else limit - 1)


@tool(name="text.join", kind="inline", cost="cheap", effects="none")
def join(parts: list[Any], separator: str = "\n") -> str:
    """Put parts together, with a separator between them. Parts that are no text are written as JSON. At most 64 MiB."""
    texts = [part if isinstance(part, str) else json.dumps(part, ensure_ascii=False) for part in parts]
    if sum(map(len, texts)) + len(separator) * len(texts) > _LONGEST_JOINED:
        raise ArgumentError("text.join", f"it makes more than {_LONGEST_JOINED:,} characters of text", "Join less.")
    return separator.join(texts)


@tool(name="text.truncate", kind="inline", cost="cheap", effects="none")
def truncate(text: str, length: Annotated[int, Field(ge=0)], *, ending: str = "…") -> str:
    """The text if it has at most `length` characters, else its start and the ending, which have so many together."""
    if len(text) <= length:
        return text
    return f"{text[: max(0, length - len(ending))].rstrip()}{ending}"[:length]


class Match(TypedDict):
    text: str
    start: int
    """Characters before it."""
    groups: list[str | None]
    """What the parentheses of the pattern match; null for those that do not take part."""
    names: dict[str, str | None]
    """The same for `(?P<name>...)`."""


# A process of its own: some patterns take for ever, and nothing else in a process runs while Python matches one.
@tool(name="text.match", kind="process", cost="costly", effects="none")
def match(text: str, pattern: str, *, limit: Annotated[int, Field(ge=1)] = 1000) -> list[Match]:
    """Find a regular expression, in Python's syntax, everywhere in a text: the first so many matches, or none.

    Give the task a timeout if pattern or text come from somebody else: there are patterns that take for ever.
    """
    try:
        found = itertools.islice(re.finditer(pattern, text), limit)
    except re.error as error:
        where = "" if error.pos is None else f" at character {error.pos + 1}"
        raise ArgumentError("text.match", f"the pattern has a mistake{where}: {error.msg}", "Correct it.") from None
    return [
        {"text": hit.group(), "start": hit.start(), "groups": list(hit.groups()), "names": hit.groupdict()}
        for hit in found
    ]


class _Sandbox(ImmutableSandboxedEnvironment):
    """One per rendering: it counts the steps and the text of that rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
            optimized=False,  # or constants would be computed at compile time, beside the limits
            finalize=self._count_text,
        )
        del self.globals["lipsum"], self.filters["random"]
        for name in _GROWING & self.filters.keys():
            self.filters[name] = _bounded(self.filters[name], _check_growth)
        self.filters["format"] = _bounded(self.filters["format"], lambda value, *_, **__: _check_format(value))
        self.filters[_STEPS] = self._counted
        self.filters[_JOINED] = _checked
        self._steps = itertools.count(1)
        self._text = 0

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        self._step()
        method = inspect.unwrap(obj)  # the sandbox wraps `str.format`
        owner = getattr(method, "__self__", None)
        if isinstance(owner, str):
            _check_format(owner)
            if method.__name__ in _GROWING:
                _check_growth(owner, *args, **kwargs)
        return _checked(super().call(context, obj, *args, **kwargs))

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        if operator == "**" and isinstance(right, int) and abs(right) > _WIDEST:
            raise SecurityError(f"an exponent is larger than {_WIDEST:,}")
        if operator == "*" and (isinstance(left, (str, list)) or isinstance(right, (str, list))):
            _check_growth(left, right) if isinstance(left, (str, list)) else _check_growth(right, left)
        if operator == "%" and isinstance(left, str):
            _check_format(left)
        return _checked(super().call_binop(context, operator, left, right))

    def _counted(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self._step()
            yield item

    def _step(self) -> None:
        if next(self._steps) > _MOST_STEPS:
            raise SecurityError(f"it takes more than {_MOST_STEPS:,} steps of loops and calls")

    def _count_text(self, value: Any) -> Any:
        text = value if isinstance(value, str) else str(value)
        self._text += len(text)
        if self._text > _LONGEST:
            raise SecurityError(_TOO_LONG)
        return text


class _Counted(NodeTransformer):
    """Puts the sandbox's counters where Jinja2 has no hook of its own: into loops, and around `~`."""

    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802  # Jinja2 finds it by this name
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, _STEPS, [], [], None, None, lineno=node.lineno)
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return nodes.Filter(node, _JOINED, [], [], None, None, lineno=node.lineno)


@functools.lru_cache(maxsize=256)
def _compiled(template: str) -> CodeType:
    sandbox = _Sandbox()
    return sandbox.compile(_Counted().visit(sandbox.parse(template)))


def _limited(parts: Iterable[str]) -> Iterator[str]:
    length = 0
    for part in parts:
        length += len(part)
        if length > _LONGEST:
            raise SecurityError(_TOO_LONG)
        yield part


def _bounded(function: Callable[..., Any], check: Callable[..., None]) -> Callable[..., Any]:
    """A filter that looks at its arguments before it makes much text of little."""

    @functools.wraps(function)
    def bounded(*args: Any, **kwargs: Any) -> Any:
        check(*(arg for arg in args if not isinstance(arg, (Environment, EvalContext))), **kwargs)
        return function(*args, **kwargs)

    return bounded


def _check_format(value: Any) -> None:
    if _WIDE_FORMAT.search(str(value)):
        raise SecurityError("a format asks for a width of more than four digits, or for one that is computed")


def _check_growth(value: Any, *args: Any, **kwargs: Any) -> None:
    if _size(value) * max(map(_growth, (*args, *kwargs.values())), default=1) > _LONGEST:
        raise SecurityError(_TOO_LONG)


def _size(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return max(1, sum(len(item) if isinstance(item, str) else 1 for item in value))
    return max(1, len(value)) if isinstance(value, str) else 1


def _growth(argument: Any) -> int:
    return abs(argument) if isinstance(argument, int) else _size(argument)


def _checked(value: Any) -> Any:
    if isinstance(value, (str, list, tuple)) and len(value) > _LONGEST:
        raise SecurityError(_TOO_LONG)
    return value
