"""References and braces in the text of an expression, found without parsing CEL."""

import re
from collections.abc import Iterator, Sequence

from comagent.errors import ExpressionError
from comagent.expressions.reference import IDENTIFIER, ROOTS, Reference, is_word

__all__ = ["closing_brace", "quote_hint", "read_reference", "references_in"]

_QUOTED = r"""(?:"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')"""
_STEP = rf"\.(?:{IDENTIFIER.pattern})|\[(?:\d+|{_QUOTED})\]"
_STEPS = re.compile(_STEP)
_PLAIN = re.compile(rf"({'|'.join(ROOTS)})((?:{_STEP})*)")

_TOKEN = re.compile(
    rf"""
      (?P<string>
          (?:[rR][bB]?|[bB][rR])(?:\"{{3}}.*?\"{{3}}|'{{3}}.*?'{{3}}|"[^"\n]*"|'[^'\n]*')
        | [bB]?(?:\"{{3}}(?:[^\\]|\\.)*?\"{{3}}|'{{3}}(?:[^\\]|\\.)*?'{{3}}|{_QUOTED})
      )
    | (?P<blank>\s+|//[^\n}}]*)
    | (?P<name>{IDENTIFIER.pattern})
    | (?P<number>\d+(?:\.\d+)?\w*)
    | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL | re.ASCII,
)
"""The tokens of CEL as far as it takes to see where strings, names and braces are."""


def read_reference(source: str) -> Reference | None:
    """The reference that the whole text is, else None. Raises ExpressionError for one that lacks its name."""
    plain = _PLAIN.fullmatch(source)
    if plain is None:
        return None
    steps = plain[2]
    if "[" in steps:
        return _reference(source, plain[1], [_step(step[0]) for step in _STEPS.finditer(steps)])
    return _reference(source, plain[1], steps[1:].split(".") if steps else ())


def references_in(source: str) -> Iterator[Reference]:
    """All references in an expression. Names that a macro such as `filter(item, …)` binds are its own."""
    tokens = [token for token in _TOKEN.finditer(source) if not token["blank"]]
    texts = [token[0] for token in tokens]
    bound = {
        texts[at + 2]
        for at, text in enumerate(texts[:-3])
        if text in _MACROS and texts[at + 1] == "(" and texts[at + 3] == ","
    }
    for at, token in enumerate(tokens):
        root = token["name"]
        if root in ROOTS and root not in bound and not _is_field(tokens, at):
            steps = list(_steps(tokens, at + 1))
            if not steps and root == "inputs":
                yield Reference(root, None)
            else:
                yield _reference(source, root, steps)


def closing_brace(text: str, position: int) -> int:
    """Where the `}` is that ends the expression which starts at `position`. Raises ExpressionError."""
    depth = 0
    for token in _TOKEN.finditer(text, position):
        if token["other"] == "{":
            depth += 1
        elif token["other"] == "}":
            if depth == 0:
                return token.start()
            depth -= 1
    raise ExpressionError(
        text[position:], "the closing brace is missing", "Write $${ where the characters ${ are meant."
    )


def quote_hint(source: str) -> tuple[str, str] | None:
    """Problem and remedy for `tasks.load-csv`, which CEL takes for a subtraction; None where there is no such thing."""
    outside_strings = "".join(" " if token["string"] else token[0] for token in _TOKEN.finditer(source))
    for root, name in _DOTTED.findall(outside_strings):
        if not is_word(name):
            return f'"{name}" is no plain word', f'Write {root}["{name}"].'
    return None


_DOTTED = re.compile(r"""\b(tasks|status|errors|inputs)\.([^\s()\[\]{}.,:;?!<>=&|+*/%"']+)""")


def _reference(source: str, root: str, steps: Sequence[str | int]) -> Reference:
    if root in ("item", "index"):
        return Reference(root, None, tuple(steps))
    if not steps and root == "inputs":
        return Reference(root, None)
    if not steps or not isinstance(steps[0], str):
        _, remedy = quote_hint(source) or ("", f'Write {root}.name, or {root}["name"] where the name is no plain word.')
        raise ExpressionError(source, f"`{root}` needs a name that is written out", remedy)
    return Reference(root, steps[0], tuple(steps[1:]))


_MACROS = ("all", "exists", "exists_one", "filter", "map")


def _is_field(tokens: Sequence[re.Match[str]], at: int) -> bool:
    """Whether the name there is what a dot selects. A dot with nothing before it selects nothing."""
    if at < 2 or tokens[at - 1][0] != ".":
        return False
    before = tokens[at - 2]
    return before["other"] is None or before[0] in ")]}"


def _steps(tokens: Sequence[re.Match[str]], at: int) -> Iterator[str | int]:
    """The keys and indexes that follow a root, as far as they are written out."""
    while at + 1 < len(tokens):
        mark, token = tokens[at], tokens[at + 1]
        after = tokens[at + 2][0] if at + 2 < len(tokens) else ""
        if mark[0] == "." and token["name"] and after != "(":
            yield token[0]
            at += 2
        elif mark[0] == "[" and after == "]" and re.fullmatch(rf"\d+|{_QUOTED}", token[0]):
            yield _step(f"[{token[0]}]")
            at += 3
        else:
            return


def _step(text: str) -> str | int:
    """The key or index in `.key`, `["key"]` or `[3]`."""
    if text[0] == ".":
        return text[1:]
    inner = text[1:-1]
    if inner[0] not in "\"'":
        return int(inner)
    return re.sub(r"\\(.)", _unescaped, inner[1:-1])


def _unescaped(escape: re.Match[str]) -> str:
    if escape[1] not in "\"'\\":
        raise ExpressionError(
            escape.string, f"the escape {escape[0]} is not known in a name", "Write the character itself."
        )
    return escape[1]
