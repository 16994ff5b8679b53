"""Renews the tables that are made from the code: the fields of a process, and the tools. With `--check` it only compares.

uv run python docs/generate.py

What a field means is written in the table itself and stays there; the other columns come from the models.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from comagent.spec import Defaults, Input, Process, Retry, Task, parse_duration
from comagent.tools.base import ToolSpec
from comagent.tools.registry import catalogue

DOCS = Path(__file__).parent
COMMAND = "uv run python docs/generate.py"
UNKNOWN = "?"
"""Stands where nobody has written yet what a field means."""

_MODELS: dict[str, type[BaseModel]] = {
    "Process": Process,
    "Input": Input,
    "Task": Task,
    "Retry": Retry,
    "Defaults": Defaults,
}
_TITLES = {
    "Process": "The process itself",
    "Input": "An input, under `inputs`",
    "Task": "A task, under `tasks`",
    "Retry": "A retry rule, under `retry`",
    "Defaults": "Defaults for all tasks, under `defaults`",
}
_SHORTHAND = {"Retry", "Task", "Defaults"}
"""Where `max_retries` may be written, which is no field of the model."""
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value", dict: "mapping"}


def main() -> None:
    """Ends with exit code 1 where `--check` finds a table that is out of date."""
    stale = [path.name for path, text in pages() if path.read_text(encoding="utf-8") != text]
    if "--check" not in sys.argv:
        for path, text in pages():
            path.write_text(text, encoding="utf-8")
    elif stale:
        sys.exit(f"out of date: {', '.join(stale)}. Renew with: {COMMAND}")


def pages() -> Iterator[tuple[Path, str]]:
    """Each page that has tables made here, as it should be."""
    for name, section, make in (("processes.md", "fields", _fields), ("tools.md", "tools", _tools)):
        path = DOCS / name
        before, begin, rest = path.read_text(encoding="utf-8").partition(f"<!-- begin {section} -->\n")
        old, end, after = rest.partition(f"<!-- end {section} -->")
        if not end:
            sys.exit(f"{path}: there is no section {section}")
        yield path, before + begin + make(old) + end + after


def _fields(old: str) -> str:
    meanings = _meanings(old)
    parts = []
    for name, model in _MODELS.items():
        rows = [_row(name, key, kind, default, meanings) for key, kind, default in _keys(name, model)]
        parts.append(f"\n### {_TITLES[name]}\n\n| field | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows))
    return "".join(parts) + "\n"


def _meanings(old: str) -> dict[tuple[str, str], str]:
    """What the table says by now, by model and field."""
    found = {}
    name = ""
    for line in old.splitlines():
        if line.startswith("### "):
            name = next((each for each, title in _TITLES.items() if title == line.removeprefix("### ")), "")
        elif row := re.fullmatch(r"\| `(\w+)` \|.*\| (.*) \|", line):
            found[name, row[1]] = row[2]
    return found


def _row(model: str, key: str, kind: str, default: str, meanings: dict[tuple[str, str], str]) -> str:
    return f"| `{key}` | {kind} | {default} | {meanings.get((model, key), UNKNOWN)} |\n"


def _keys(name: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    """Key, kind of value and default of each field, as they are written in a file."""
    for attribute, field in model.model_fields.items():
        key = str(field.validation_alias or attribute)
        duration = any(getattr(each, "func", None) is not None and "duration" in repr(each) for each in field.metadata)
        kind = "duration" if duration or attribute.endswith("_s") else _kind(field.annotation)
        if key == "priority":
            kind = "`critical`, `high`, `normal`, `low` or whole number"
        yield key, kind, "required" if field.is_required() else _default(field.default, is_duration=kind == "duration")
    if name in _SHORTHAND:
        yield "max_retries", "whole number", ""


def _kind(annotation: Any) -> str:
    if annotation in _WORDS:
        return _WORDS[annotation]
    origin, inner = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return ", ".join(f"`{each}`" for each in inner)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(_kind(each) for each in inner if each is not NoneType))
    if origin is dict:
        return "mapping"
    if origin is tuple:
        return "list" if inner[0] is str else f"list of {_kind(inner[0])}s"
    if hasattr(annotation, "__metadata__"):
        return _kind(inner[0])
    return annotation.__name__.lower() if isinstance(annotation, type) else str(annotation)


def _default(value: Any, *, is_duration: bool) -> str:
    if value in (None, "", (), {}) or isinstance(value, BaseModel):
        return ""
    if is_duration:
        return f"`{parse_duration(value):g}s`"
    return f"`{value}`"


def _tools(_old: str) -> str:
    rows = [f"| `{_call(spec)}` | {spec.summary.replace('|', '&#124;')} | {spec.kind} |\n" for spec in catalogue()]
    return "\n| tool | what it does | kind |\n|---|---|---|\n" + "".join(rows) + "\n"


def _call(spec: ToolSpec) -> str:
    required = [name for name in spec.parameters["properties"] if name in spec.parameters.get("required", ())]
    optional = [name for name in spec.parameters["properties"] if name not in required]
    shown = ", ".join((*required, *(f"[{name}]" for name in optional)))
    return f"{spec.name}({shown})"


if __name__ == "__main__":
    main()
