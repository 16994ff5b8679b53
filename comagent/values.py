"""Values as bytes: canonical JSON for what travels and is stored."""

import json
import math
from json.encoder import encode_basestring
from typing import Any

from comagent.errors import ValueNotStorableError

JSON = "json"
"""Type of a document that holds a JSON value."""

SCALARS = frozenset({int, float, str, bool, type(None)})
"""Types of values that can be shared without being copied."""

MAX_DEPTH = 200
"""Levels of lists and dictionaries in a value: what one process could just write, another might not be able to read."""

_TOO_DEEP = f"the result is nested deeper than {MAX_DEPTH} levels"
_REMEDY = "Return text, numbers, true, false, null, and lists and dictionaries of them."
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode


def canonical_json(value: object) -> str:
    """The one JSON text of a value: keys sorted, no spaces, no escapes that are not needed.

    Raises TypeError or ValueError for what JSON does not know, NaN and infinity included.
    """
    return _encode(value)


def encode(value: Any, *, tool: str) -> bytes:
    """Canonical JSON of a tool's result: sorted keys, no spaces, UTF-8. Raises `ValueNotStorableError`."""
    kind = type(value)
    if value is None:
        return b"null"
    if kind is float and math.isfinite(value):
        return repr(value).encode()
    try:
        if kind is int:
            return b"%d" % value
        if kind is str:
            return encode_basestring(value).encode()
        data = _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueNotStorableError(tool, _problem(error), _REMEDY) from None
    # Counting is quick, and few values have so many containers.
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _is_deep(value):
        raise ValueNotStorableError(tool, _TOO_DEEP, _REMEDY)
    return data


def decode(data: bytes | memoryview) -> Any:
    """The value again. Tuples have become lists, and keys text."""
    return json.loads(data if isinstance(data, bytes) else bytes(data))


def _is_deep(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            item
            for container in level
            for item in (container.values() if isinstance(container, dict) else container)
            if isinstance(item, dict | list | tuple)
        ]
        if not level:
            return False
    return True


def _problem(error: Exception) -> str:
    match error:
        case UnicodeEncodeError():
            return "the result holds text that is not Unicode (a lone surrogate)"
        case RecursionError():
            return _TOO_DEEP
        case ValueError() if "Circular reference" in str(error):
            return "the result contains itself"
        case TypeError() if "is not JSON serializable" in str(error):
            kind = str(error).removeprefix("Object of type ").removesuffix(" is not JSON serializable")
            return f"the result holds a {kind}, which JSON has no form for"
        case TypeError():
            return f"the keys of a dictionary in the result are not all text ({error})"
        case ValueError() if "Out of range float" in str(error):
            return "the result holds NaN or infinity, which JSON has no form for"
    return f"the result cannot be written as JSON: {error}"
