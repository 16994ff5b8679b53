"""A value by its place, such as `tasks.load.rows[0]`: to look it up, and to say why it is not there."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from comagent.errors import ExpressionError
from comagent.nearest import did_you_mean
from comagent.values import canonical_json

__all__ = ["IDENTIFIER", "ROOTS", "Reference", "Scope", "explain", "find_gap", "is_word", "kind_of", "look_up"]

ROOTS = ("inputs", "tasks", "status", "errors", "item", "index")
"""The names that a reference may start from."""

IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_KEYWORDS = frozenset(("false", "in", "null", "true"))

Scope = Mapping[str, Any]
"""The values by root: `inputs`, `tasks`, `status` and `errors` are mappings by name; `item` and `index` are values.

A value is taken out only if it is referenced, so that a mapping may decode it on access.
"""


class Reference(NamedTuple):
    """`tasks.load.rows[0]` is root `tasks`, name `load`, path `("rows", 0)`."""

    root: str
    name: str | None
    """None for `item` and `index`, and where all `inputs` are meant."""
    path: tuple[str | int, ...] = ()

    def __str__(self) -> str:
        steps = self.path if self.name is None else (self.name, *self.path)
        return self.root + "".join(
            f".{step}" if isinstance(step, str) and is_word(step) else f"[{canonical_json(step)}]" for step in steps
        )


class Gap(NamedTuple):
    """Where a reference leads nowhere."""

    place: Reference
    """The part of the reference that exists."""
    value: Any
    """What is there."""
    step: str | int
    """What it does not have."""


def is_word(name: str) -> bool:
    """Whether `name` may stand after a dot in any expression; other names are written `["…"]`."""
    return IDENTIFIER.fullmatch(name) is not None and name not in _KEYWORDS


def look_up(reference: Reference, scope: Scope) -> Any:
    """The value itself, not a copy. Raises ExpressionError."""
    root, name, path = reference
    try:
        value = scope[root]
        if name is not None:
            value = value[name]
        for step in path:
            value = _deeper(value, step)
    except (KeyError, IndexError, TypeError):
        raise explain(reference, scope) from None
    return value


def find_gap(reference: Reference, scope: Scope) -> Gap | None:
    """None where the value exists; where the root itself is not in the scope, too."""
    root, name, path = reference
    if root not in scope:
        return None
    place, value = Reference(root, None), scope[root]
    for step in path if name is None else (name, *path):
        try:
            deeper = value[step] if place == (root, None, ()) else _deeper(value, step)
        except (KeyError, IndexError, TypeError):
            return Gap(place, value, step)
        if place == (root, None, ()) and name is not None:
            place = Reference(root, name)
        else:
            place = place._replace(path=(*place.path, step))
        value = deeper
    return None


def explain(reference: Reference, scope: Scope, *, source: str | None = None) -> ExpressionError:
    """The error for a reference that leads nowhere; `source` is the expression that it occurs in."""
    source = str(reference) if source is None else source
    root, name, _ = reference
    if root not in scope:
        return ExpressionError(source, f"there is no `{root}` here", "`item` and `index` exist inside `map` only.")
    gap = find_gap(reference, scope)
    if gap is None:
        return ExpressionError(source, f"{reference} cannot be read")
    place, value, step = gap
    if name is not None and place.name is None and root in _MISSING:
        what, status = _MISSING[root]
        remedy = f'Where that may be, ask `{Reference("status", name)} == "{status}"` first.' if status else ""
        return ExpressionError(source, f'task "{name}" has no {what}', remedy)
    if isinstance(value, Mapping):
        keys = [str(key) for key in value]
        listed = ", ".join(keys[:10]) + (", …" if len(keys) > 10 else "")
        problem = f'{place} has no key "{step}"; it {f"has: {listed}" if keys else "is empty"}'
        return ExpressionError(source, problem, did_you_mean(str(step), keys))
    if isinstance(value, list | tuple) and isinstance(step, int):
        size = f"{len(value)} item{'' if len(value) == 1 else 's'}"
        return ExpressionError(source, f"{place} has {size}, so there is no [{step}]; the first is [0]")
    sought = f"item [{step}]" if isinstance(step, int) else f'key "{step}"'
    return ExpressionError(source, f"{place} is {kind_of(value)}, so it has no {sought}")


def kind_of(value: Any) -> str:
    """A value in a sentence: `the number 3`, `text`, `a list`."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {value}"
        case str():
            return "text"
        case Mapping():
            return "a mapping"
        case list() | tuple():
            return "a list"
    return f"a value of type {type(value).__name__}"


def _deeper(value: Any, step: str | int) -> Any:
    # Python would find a character in a text.
    if isinstance(value, str):
        raise TypeError
    return value[step]


_MISSING = {"tasks": ("value", "succeeded"), "errors": ("error", "failed"), "status": ("status", "")}
