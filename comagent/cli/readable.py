"""Values as text that people read and YAML readers understand."""

import json
import re
from collections.abc import Iterator
from typing import Any

_PLAIN = re.compile(r"[A-Za-z_/.][A-Za-z0-9_./%()+=,;-]*(?: [A-Za-z0-9_./%()+=,;-]+)*")
_NOT_TEXT = re.compile(r"(?:true|false|null|yes|no|on|off|~|\.inf|\.nan|[-+.]?[0-9].*|[.]+)", re.IGNORECASE)
_HIDDEN = "\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff"
"""What JSON may hold as it is, but YAML may not, or a terminal should not."""
_ESCAPED = re.compile(f"[{_HIDDEN}]")
_UNFIT_FOR_BLOCK = re.compile(rf"[\x00-\x09\x0b-\x1f{_HIDDEN}]|[ ](?:\n|$)")


def readable(value: Any) -> str:
    """A JSON-like value: a text as it is, anything else as YAML without a final line break."""
    return value if isinstance(value, str) else "\n".join(_lines(value))


def outputs_text(outputs: Any) -> str:
    """A job's outputs: the value alone where there is only one."""
    if isinstance(outputs, dict) and len(outputs) == 1:
        return readable(next(iter(outputs.values())))
    return readable(outputs)


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from _entry(f"{_scalar(key)}:", inner, indent="  " if isinstance(inner, dict) else "")
    elif isinstance(value, list) and value:
        for inner in value:
            yield from _item(inner)
    elif _is_block(value):
        yield "|" if value.endswith("\n") else "|-"
        yield from (f"  {line}" if line else "" for line in value.removesuffix("\n").split("\n"))
    else:
        yield _scalar(value)


def _entry(head: str, value: Any, *, indent: str) -> Iterator[str]:
    if isinstance(value, dict | list) and value:
        yield head
        yield from (f"{indent}{line}" if line else line for line in _lines(value))
    else:
        first, *rest = _lines(value)
        yield f"{head} {first}"
        yield from rest


def _item(value: Any) -> Iterator[str]:
    if _is_block(value):
        yield from _entry("-", value, indent="")
        return
    first, *rest = _lines(value)
    yield f"- {first}"
    yield from (f"  {line}" if line else line for line in rest)


def _is_block(value: Any) -> bool:
    """Whether it is a text of several lines that YAML's block form keeps as it is."""
    if not isinstance(value, str) or "\n" not in value.removesuffix("\n"):
        return False
    return not (value.startswith((" ", "\n")) or value.endswith("\n\n") or _UNFIT_FOR_BLOCK.search(value))


def _scalar(value: Any) -> str:
    if isinstance(value, str) and _PLAIN.fullmatch(value) and not _NOT_TEXT.fullmatch(value):
        return value
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", json.dumps(value, ensure_ascii=False))
