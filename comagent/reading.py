"""Process files, YAML or JSON, into plain documents; and where in the file a problem is.

YAML is read as version 1.2 has it, and only what JSON can say: `on`, `yes` and dates are text, keys are text, nothing
is constructed from tags. Duplicate keys, aliases that multiply and deep nesting are refused. Nothing here recurses, so
that no file can exhaust the stack.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import yaml

from comagent.errors import Problem, ProcessError
from comagent.spec import MAX_DEPTH, Process, parse, too_deep

__all__ = ["MAX_BYTES", "Marks", "load_process", "read_process"]

MAX_BYTES = 32 * 1024 * 1024

_MAX_BORROWED = 1_000_000
"""How many values aliases may add to a document."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Position = tuple[int, int]
"""Line and column, counted from 1."""


def read_process(path: str | Path, *, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Any], "Marks"]:
    """The document in a file. Raises ProcessError for what is no readable, well-formed YAML or JSON mapping."""
    file = str(path)
    text = _read_text(Path(path), file, max_bytes)
    suffix = Path(path).suffix.lower()
    if suffix == ".json" or (suffix not in (".yaml", ".yml") and _is_json(text)):
        document = _from_json(text, file)
    else:
        document = _from_yaml(text, file)
    if not isinstance(document, dict):
        problem = "the file is empty" if document is None else "the file does not hold a mapping"
        _refuse(problem, file, remedy="A process is a mapping with `name` and `tasks`.")
    return document, Marks(file, text, document)


def load_process(path: str | Path) -> Process:
    """The process in a file. Raises ProcessError whose problems name the line."""
    document, marks = read_process(path)
    try:
        return parse(document, file=marks.file)
    except ProcessError as error:
        raise marks.locate(error) from None


class Marks(Mapping[str, int]):
    """The line of each task of a file, by id. The file is searched when the first line is asked for, not before."""

    def __init__(self, file: str, text: str, document: dict[str, Any]) -> None:
        self.file = file
        self._text = text
        self._document = document

    def __getitem__(self, task: str) -> int:
        return self._positions[("tasks", self._indexes[task])][0]

    def __iter__(self) -> Iterator[str]:
        return iter(self._indexes)

    def __len__(self) -> int:
        return len(self._indexes)

    def __bool__(self) -> bool:
        """True without a search, which an empty-or-not would need."""
        return True

    def locate(self, error: ProcessError) -> ProcessError:
        """The same problems, with file, line and column where they can be told."""
        return ProcessError(tuple(self._located(problem) for problem in error.problems))

    def _located(self, problem: Problem) -> Problem:
        if problem.line is not None or problem.file not in (None, self.file):
            return problem
        path: tuple[str | int, ...] = tuple(problem.field.split(".")) if problem.field else ()
        if problem.task is not None:
            number = re.fullmatch(r"#(\d+)", problem.task)
            own, _, inner = problem.task.partition("/")
            index = int(number[1]) - 1 if number else self._indexes.get(own, -1)
            # What is wrong inside a sub-process is shown where this file names it.
            path = ("tasks", index, "process") if inner else ("tasks", index, *path)
        known: tuple[str | int, ...] = ()
        for step in path:
            # The places of a list are numbers in a path, and text in the name of a field.
            steps = (step, int(step)) if isinstance(step, str) and step.isdecimal() else (step,)
            deeper = next(((*known, each) for each in steps if (*known, each) in self._positions), None)
            if deeper is None:
                break
            known = deeper
        line, column = self._positions.get(known, (None, None))
        return replace(problem, file=self.file, line=line, column=column)

    @cached_property
    def _positions(self) -> dict[tuple[str | int, ...], Position]:
        """Of every key and item, by path. JSON that is no YAML (indented with tabs) is known up to there."""
        positions: dict[tuple[str | int, ...], Position] = {}
        with suppress(ProcessError):
            _from_yaml(self._text, self.file, positions)
        return positions

    @cached_property
    def _indexes(self) -> dict[str, int]:
        tasks = self._document.get("tasks")
        ids = (
            [entry.get("id") if isinstance(entry, dict) else None for entry in tasks] if isinstance(tasks, list) else []
        )
        # Of several tasks with one id the last is found: it is the one to rename.
        return {
            id_: index for index, id_ in enumerate(ids) if isinstance(id_, str) and ("tasks", index) in self._positions
        }


def _refuse(
    message: str, file: str, position: Position | tuple[None, None] = (None, None), *, remedy: str = ""
) -> NoReturn:
    line, column = position
    raise ProcessError((Problem(message, file, line, column, remedy=remedy or None),))


def _read_text(path: Path, file: str, max_bytes: int) -> str:
    try:
        with path.open("rb") as stream:
            data = stream.read(max_bytes + 1)
    except FileNotFoundError:
        _refuse("there is no such file", file, remedy="Check the path; relative ones start from the current folder.")
    except IsADirectoryError:
        _refuse("this is a folder", file, remedy="Name a process file in it.")
    except (OSError, ValueError) as error:
        _refuse(f"the file cannot be read: {getattr(error, 'strerror', None) or error}", file)
    if len(data) > max_bytes:
        _refuse(f"the file is larger than {max_bytes:,} bytes", file, remedy="Keep data in files of its own.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start]
        position = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        _refuse("the file is not UTF-8 text", file, position, remedy="Save it with the encoding UTF-8.")


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _from_json(text: str, file: str) -> Any:
    def mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            _refuse(f'the key "{twice}" occurs twice in the mapping with the keys {", ".join(value)}', file)
        return value

    def constant(name: str) -> NoReturn:
        _refuse(f"{name} is no number that JSON knows", file)

    try:
        document = json.loads(text, object_pairs_hook=mapping, parse_constant=constant)
    except json.JSONDecodeError as error:
        _refuse(f"this is not JSON: {error.msg.lower()}", file, (error.lineno, error.colno))
    except ValueError:
        # Python reads no whole number of more than 4,300 digits.
        _refuse("a number is too long", file, remedy="Put it in quotes to have it as text.")
    except RecursionError:
        _refuse_depth(file)
    if too_deep(document):
        _refuse_depth(file)
    return document


def _refuse_depth(file: str, position: Position | tuple[None, None] = (None, None)) -> NoReturn:
    _refuse(f"lists and mappings are nested more than {MAX_DEPTH} deep", file, position)


def _from_yaml(text: str, file: str, positions: dict[tuple[str | int, ...], Position] | None = None) -> Any:
    builder = _Builder(file, positions)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = (mark.line + 1, mark.column + 1) if mark else (None, None)
        problem = str(error.problem or error.context)
        _refuse(f"this is not YAML: {problem}", file, position, remedy=_yaml_remedy(problem))
    except yaml.YAMLError as error:
        before = text[: getattr(error, "position", 0)]
        position = before.count("\n") + 1, len(before) - before.rfind("\n")
        _refuse("the file holds a control character", file, position, remedy='Write it as an escape in "…".')
    return builder.document


def _yaml_remedy(problem: str) -> str:
    if "mapping values are not allowed" in problem:
        return "Text that holds a colon and a space needs quotes."
    if "cannot start any token" in problem:
        return "Indent with spaces, and put text that starts with @, % or ` in quotes."
    if "',' or" in problem or "node content" in problem:
        return 'Close every { and [; inside them, "${…}" needs quotes.'
    return "Is the indentation right?" if "block" in problem else ""


class _Frame:
    """A list or a mapping that is being filled."""

    __slots__ = ("anchor", "key", "merged", "merges", "path", "seen", "value")

    def __init__(self, value: dict[str, Any] | list[Any], anchor: str | None, seen: int) -> None:
        self.value = value
        self.anchor = anchor
        self.seen = seen
        self.key: str | None = None
        self.merges = False
        self.merged: Any = None
        self.path: tuple[str | int, ...] = ()


class _Builder:
    """Makes a document of the events of a YAML parser, with a stack of its own."""

    def __init__(self, file: str, positions: dict[tuple[str | int, ...], Position] | None) -> None:
        self.document: Any = None
        self._file = file
        self._positions = positions
        self._stack: list[_Frame] = []
        self._documents = 0
        self._seen = 0
        self._borrowed = 0
        self._anchored: dict[str, tuple[Any, int]] = {}

    def take(self, event: Any) -> None:
        kind = type(event)
        if kind is yaml.ScalarEvent:
            self._scalar(event)
        elif kind is yaml.MappingStartEvent or kind is yaml.SequenceStartEvent:
            self._start(event, {} if kind is yaml.MappingStartEvent else [])
        elif kind is yaml.MappingEndEvent or kind is yaml.SequenceEndEvent:
            self._end(event)
        elif kind is yaml.AliasEvent:
            self._alias(event)
        elif kind is yaml.DocumentStartEvent:
            self._documents += 1
            if self._documents > 1:
                self._refuse("the file holds more than one document", event, "Put each process into a file of its own.")

    def _scalar(self, event: Any) -> None:
        frame = self._stack[-1] if self._stack else None
        if frame is not None and frame.key is None and isinstance(frame.value, dict):
            self._key(frame, event)
            return
        self._seen += 1
        if event.tag is None:
            value = self._plain(event) if event.implicit[0] else event.value
        elif event.tag in ("!", "tag:yaml.org,2002:str"):
            value = event.value
        else:
            value = self._tagged(event)
        if event.anchor is not None:
            self._anchored[event.anchor] = (value, 1)
        self._add(value, event)

    def _tagged(self, event: Any) -> Any:
        if event.tag not in _SCALAR_TAGS:
            self._refuse_tag(event)
        value = self._plain(event)
        if not isinstance(value, _SCALAR_TAGS[event.tag]):
            self._refuse_tag(event)
        return value

    def _plain(self, event: Any) -> Any:
        text: str = event.value
        if text in _CONSTANTS:
            return _CONSTANTS[text]
        if text[0] not in "+-.0123456789":
            return text
        if _NOT_FINITE.fullmatch(text):
            self._refuse_number(event)
        try:
            if _INTEGER.fullmatch(text):
                return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        except ValueError:
            # Python reads no whole number of more than 4,300 digits.
            self._refuse_number(event)
        if not _FLOAT.fullmatch(text):
            return text
        number = float(text)
        return number if math.isfinite(number) else self._refuse_number(event)

    def _start(self, event: Any, value: dict[str, Any] | list[Any]) -> None:
        if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
            self._refuse_tag(event)
        if len(self._stack) >= MAX_DEPTH:
            _refuse_depth(self._file, _position(event))
        self._seen += 1
        frame = _Frame(value, event.anchor, self._seen + self._borrowed)
        frame.path = self._add(value, event)
        self._stack.append(frame)
        if event.anchor is not None:
            self._anchored.pop(event.anchor, None)

    def _end(self, event: Any) -> None:
        frame = self._stack.pop()
        if isinstance(frame.value, dict) and frame.merged is not None:
            self._merge(frame.value, frame.merged, event)
        if frame.anchor is not None:
            self._anchored[frame.anchor] = (frame.value, self._seen + self._borrowed - frame.seen + 1)

    def _alias(self, event: Any) -> None:
        if event.anchor not in self._anchored:
            self._refuse(
                f"*{event.anchor} stands for nothing yet", event, f"Write &{event.anchor} further up, not around it."
            )
        frame = self._stack[-1]
        if frame.key is None and isinstance(frame.value, dict):
            self._refuse("a key must be text", event)
        value, size = self._anchored[event.anchor]
        self._borrowed += size
        if self._borrowed > _MAX_BORROWED:
            self._refuse(f"aliases multiply the file to more than {_MAX_BORROWED:,} values", event)
        self._add(value, event)

    def _key(self, frame: _Frame, event: Any) -> None:
        key: str = event.value
        if key in frame.value:
            self._refuse(f'the key "{key}" occurs twice in one mapping', event, "Remove one of them.")
        frame.key = key
        frame.merges = key == "<<" and event.implicit[0]
        if self._positions is not None:
            self._positions[(*frame.path, key)] = _position(event)

    def _add(self, value: Any, event: Any) -> tuple[str | int, ...]:
        """Put a value where it belongs; its path, where paths are asked for."""
        if not self._stack:
            self.document = value
            return ()
        frame = self._stack[-1]
        step: str | int
        if isinstance(frame.value, list):
            step = len(frame.value)
            frame.value.append(value)
        elif frame.key is None:
            self._refuse("a key must be text", event)
        else:
            step, frame.key = frame.key, None
            if frame.merges:
                frame.merged = value
            else:
                frame.value[step] = value
        if self._positions is None:
            return ()
        path = (*frame.path, step)
        self._positions.setdefault(path, _position(event))
        return path

    def _merge(self, value: dict[str, Any], merged: Any, event: Any) -> None:
        """Carry out `<<`. It waits for the end of the mapping, since keys that are written come before merged ones."""
        for other in merged if isinstance(merged, list) else [merged]:
            if not isinstance(other, dict):
                self._refuse("`<<` takes a mapping, or a list of mappings", event)
            for key in other.keys() - value.keys():
                value[key] = other[key]

    def _refuse_number(self, event: Any) -> NoReturn:
        self._refuse(f"{event.value[:40]} is no number that JSON knows", event, "Put it in quotes to have it as text.")

    def _refuse_tag(self, event: Any) -> NoReturn:
        tag = event.tag.replace("tag:yaml.org,2002:", "!!")
        self._refuse(f"the tag {tag} is not supported", event, "Write plain text, numbers, lists and mappings.")

    def _refuse(self, message: str, event: Any, remedy: str = "") -> NoReturn:
        _refuse(message, self._file, _position(event), remedy=remedy)


def _position(event: Any) -> Position:
    return event.start_mark.line + 1, event.start_mark.column + 1


_CONSTANTS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF|nan|NaN|NAN)")
_SCALAR_TAGS: Mapping[str, type | tuple[type, ...]] = {
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": (int, float),
    "tag:yaml.org,2002:bool": bool,
    "tag:yaml.org,2002:null": type(None),
}
