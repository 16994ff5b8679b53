"""Renews the tables that are made from the code: the fields of a process, and the tools.

    uv run python docs/generate.py

With `--check` it only compares.

What a field means is written in the table itself and stays there; the other columns come from the models.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel

from comagent.spec import Defaults, Input, Process, Retry, Task
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
_HEAD = "| field | value | default | meaning |\n|---|---|---|---|\n"
_SHORTHAND = {"Retry", "Task", "Defaults"}
"""Where `max_retries` may be written, which is no field of the model."""
_KINDS = {
    "needs": "list of ids",
    "on": "list of names",
    "priority": "`critical`, `high`, `normal`, `low` or a whole number",
    "process": "path or process",
    "tasks": "list of tasks",
}
"""Where the model does not say how a person writes it."""
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "any value"}


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
        parts.append(
            f"\n### {_TITLES[name]}\n\n| field | value | default | meaning |\n|---|---|---|---|\n" + "".join(rows)
        )
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
    """Key, kind of value and default of each field, as they are written in a file; a model's own fields first."""
    inherited = {each for base in model.__bases__ for each in getattr(base, "model_fields", ())}
    for attribute, field in sorted(model.model_fields.items(), key=lambda item: item[0] in inherited):
        key = str(field.validation_alias or attribute)
        duration = attribute.endswith("_s")
        kind = "duration" if duration else _KINDS.get(key) or _kind(field.annotation)
        default = "required" if field.is_required() else _default(field.default)
        yield key, kind, f"`{field.default:g}s`" if duration and default else default
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
    return "list" if origin is tuple else "mapping"


def _default(value: Any) -> str:
    return "" if value in (None, "", (), {}) or isinstance(value, BaseModel) else f"`{value}`"


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
