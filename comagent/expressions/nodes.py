"""What strings, arguments and conditions of a process are parsed into, and the way back to values."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from comagent.errors import ExpressionError
from comagent.expressions import cel
from comagent.expressions.reference import Reference, Scope, explain, find_gap, kind_of, look_up
from comagent.expressions.syntax import closing_brace, quote_hint, read_reference, references_in
from comagent.values import canonical_json

__all__ = [
    "MAX_LENGTH",
    "Expression",
    "Interpolation",
    "Template",
    "condition",
    "evaluate",
    "evaluate_condition",
    "is_constant",
    "parse",
    "references",
    "resolve",
    "template",
]

MAX_LENGTH = 10_000
"""Characters in one expression."""


class Expression(NamedTuple):
    """A CEL expression, with the references that occur in it."""

    source: str
    references: tuple[Reference, ...]


class Interpolation(NamedTuple):
    """Text with values in it."""

    parts: tuple["str | Reference | Expression", ...]


class Template(NamedTuple):
    """The arguments of a task, sorted by what it takes to resolve them."""

    constants: dict[str, Any]
    """Scalars."""
    references: tuple[tuple[str, Reference], ...]
    rest: tuple[tuple[str, Any], ...]
    """Expressions, interpolations and containers; the latter may hold any of them, or nothing but constants."""


def parse(value: Any) -> Any:
    """`value` with each string that holds `${…}` replaced by what it means, in fresh containers."""
    if isinstance(value, str):
        return _parse_string(value)
    if isinstance(value, dict):
        return {key: parse(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [parse(item) for item in value]
    return value


def condition(source: str) -> Reference | Expression:
    """The node of a `when`: a bare expression, or one `${…}`."""
    node = _parse_string(source)
    if isinstance(node, Reference | Expression):
        return node
    if isinstance(node, Interpolation):
        raise ExpressionError(source, "a condition is one expression", "Put all of it into one ${…}, or write no ${…}.")
    return _parse_expression(source)


def template(arguments: Mapping[str, Any]) -> Template:
    """The template that `resolve` makes arguments of."""
    constants: dict[str, Any] = {}
    plain: list[tuple[str, Reference]] = []
    rest: list[tuple[str, Any]] = []
    for name, value in arguments.items():
        node = parse(value)
        if isinstance(node, Reference):
            plain.append((name, node))
        elif isinstance(node, Expression | Interpolation | dict | list):
            rest.append((name, node))
        else:
            constants[name] = node
    return Template(constants, tuple(plain), tuple(rest))


def resolve(template: Template, scope: Scope) -> dict[str, Any]:
    """The arguments of one call. Raises ExpressionError.

    Containers written in the template are new each time; referenced values are handed over as they are, not copied.
    """
    constants, plain, rest = template
    arguments = constants.copy()
    for argument, reference in plain:
        arguments[argument] = look_up(reference, scope)
    for argument, node in rest:
        arguments[argument] = evaluate(node, scope)
    return arguments


def evaluate(node: Any, scope: Scope) -> Any:
    """The value of what `parse` made. Raises ExpressionError."""
    if isinstance(node, Reference):
        return look_up(node, scope)
    if isinstance(node, Expression):
        return _compute(node, scope)
    if isinstance(node, Interpolation):
        return "".join(part if isinstance(part, str) else _text(part, scope) for part in node.parts)
    if isinstance(node, dict):
        return {key: evaluate(item, scope) for key, item in node.items()}
    if isinstance(node, list):
        return [evaluate(item, scope) for item in node]
    return node


def evaluate_condition(node: Reference | Expression, scope: Scope) -> bool:
    """Whether the condition holds. Raises ExpressionError, also for a value that is neither true nor false."""
    value = evaluate(node, scope)
    if isinstance(value, bool):
        return value
    source = node.source if isinstance(node, Expression) else str(node)
    raise ExpressionError(source, f"a condition is true or false, and this is {kind_of(value)}", "Compare it with ==.")


def is_constant(node: Any) -> bool:
    """Whether what `parse` made holds no reference and no expression, so that its value is known at once."""
    return next(_dynamic(node), None) is None


def references(node: Any) -> set[tuple[str, str | None]]:
    """Root and name of all that occurs in what `parse`, `condition` or `template` made."""
    found: set[tuple[str, str | None]] = set()
    for part in _dynamic(node):
        found.update((r.root, r.name) for r in (part.references if isinstance(part, Expression) else (part,)))
    return found


def _dynamic(node: Any) -> Iterator[Reference | Expression]:
    if isinstance(node, Reference | Expression):
        yield node
    elif isinstance(node, Template):
        for _, part in (*node.references, *node.rest):
            yield from _dynamic(part)
    elif isinstance(node, Interpolation | list | dict):
        parts = node.parts if isinstance(node, Interpolation) else node.values() if isinstance(node, dict) else node
        for part in parts:
            yield from _dynamic(part)


def _compute(node: Expression, scope: Scope) -> Any:
    try:
        return cel.evaluate(node.source, _data(node.references, scope))
    except cel.MissingError as error:
        for reference in node.references:
            gap = find_gap(reference, scope)
            if reference.root not in scope or (gap and error.key in (None, str(gap.step))):
                raise explain(reference, scope, source=node.source) from None
        raise ExpressionError(node.source, error.problem) from None


def _data(used: Sequence[Reference], scope: Scope) -> dict[str, Any]:
    """The part of the scope that an expression uses, in the dicts that CEL takes."""
    data: dict[str, Any] = {}
    for root, name, _ in used:
        if root not in scope:
            continue
        if name is None:
            data[root] = dict(scope[root]) if root == "inputs" else scope[root]
        else:
            values = data.setdefault(root, {})
            # Not `name in scope[root]`, which in a mapping that decodes on access decodes one time more.
            with suppress(KeyError):
                values[name] = values[name] if name in values else scope[root][name]
    return data


def _text(part: Reference | Expression, scope: Scope) -> str:
    value = evaluate(part, scope)
    try:
        return value if isinstance(value, str) else canonical_json(value)
    except (TypeError, ValueError) as error:
        source = part.source if isinstance(part, Expression) else str(part)
        raise ExpressionError(source, f"the value cannot be written as text: {error}") from None


def _parse_string(text: str) -> Any:
    if "${" not in text:
        return text
    if text.startswith("${") and text.endswith("}") and (reference := read_reference(text[2:-1])):
        return reference
    parts: list[str | Reference | Expression] = []
    literal = ""
    position = 0
    while (start := text.find("${", position)) >= 0:
        if start > position and text[start - 1] == "$":
            literal += text[position : start - 1] + "${"
            position = start + 2
            continue
        literal += text[position:start]
        end = closing_brace(text, start + 2)
        if literal:
            parts.append(literal)
            literal = ""
        parts.append(_parse_expression(text[start + 2 : end]))
        position = end + 1
    literal += text[position:]
    if literal:
        parts.append(literal)
    if len(parts) == 1:
        return parts[0]
    return Interpolation(tuple(parts))


def _parse_expression(source: str) -> Reference | Expression:
    source = source.strip()
    if not source:
        raise ExpressionError(source, "it is empty", "Write $${} where the characters ${} are meant.")
    if len(source) > MAX_LENGTH:
        raise ExpressionError(
            source, f"it has {len(source)} characters; {MAX_LENGTH} is the limit", "Do this in a tool."
        )
    if reference := read_reference(source):
        return reference
    used = tuple(dict.fromkeys(references_in(source)))
    try:
        cel.check(source)
    except ExpressionError as error:
        hint = quote_hint(source)
        raise (ExpressionError(source, *hint) if hint else error) from None
    return Expression(source, used)
