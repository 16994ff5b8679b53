"""Tools that read and write tables and values as files of the workspace: CSV and JSON.

Paths are looked up in the workspace (`COMAGENT_WORKSPACE`, or the folder `workspace` in `COMAGENT_HOME`), as in the
`files` tools: none leads out of it. Files are UTF-8 unless something else is said, with or without a byte order mark.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Annotated, Any, Literal, NoReturn

from pydantic import Field
from typing_extensions import TypedDict

from comagent.errors import ArgumentError
from comagent.nearest import did_you_mean
from comagent.tools.base import tool
from comagent.tools.files import MaxBytes, Written, read_text, write_text
from comagent.tools.sizes import MIB

__all__ = ["DataError", "Table", "read_csv", "read_json", "write_csv", "write_json"]

_MOST = 64 * MIB
_WRITE_CSV = "data.write_csv"

Delimiter = Annotated[str, Field(pattern=r'^[^"\r\n\x00]$')]
Type = Literal["string", "integer", "number", "boolean"]


class DataError(Exception):
    """A file does not hold what it is said to hold."""


class Table(TypedDict):
    columns: list[str]
    rows: list[dict[str, Any]]
    truncated: bool
    """Whether the file has more rows than asked for."""


class WrittenTable(TypedDict):
    path: str
    bytes: int
    columns: list[str]
    rows: int


@tool(name="data.read_csv", kind="thread", effects="none")
def read_csv(
    path: str,
    delimiter: Delimiter = ",",
    *,
    columns: list[str] | None = None,
    types: dict[str, Type] = {},  # noqa: B006  # never changed
    limit: Annotated[int, Field(ge=1)] = 100_000,
    encoding: str = "utf-8-sig",
    max_bytes: MaxBytes = _MOST,
) -> Table:
    """Read a CSV file of the workspace, whose first line names the columns.

    `columns` are the ones to keep, in this order: all, if it is left out. Cells are text, unless `types` names
    another type for their column: integer, number or boolean (true or false, yes or no, 1 or 0); then an empty cell is
    null. After `limit` rows the rest is left out, and `truncated` says so. `DataError` names the line of the first
    cell that is not of its type, and of the first row with more or fewer cells than there are columns.

    The workspace is the folder `COMAGENT_WORKSPACE` of the machine on which the task runs, or `workspace` in
    `COMAGENT_HOME`. The path is relative to it, not to the process file.
    """
    text = read_text(path, encoding, max_bytes=max_bytes)
    return table(text, path, delimiter=delimiter, columns=columns, types=types, limit=limit)


def table(
    text: str, path: str, *, delimiter: str, columns: list[str] | None, types: Mapping[str, Type], limit: int
) -> Table:
    """The table in the text of a CSV file. Raises `DataError`, which calls the file `path`."""
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(filter(None, lines), None)
        if header is None:
            raise DataError(f"{path} is empty: its first line must name the columns")
        kept = _kept(header, columns, types, path)
        found = list(islice(_rows(lines, header, kept, types, path), limit + 1))
    except csv.Error as error:
        raise DataError(f"{path}, line {lines.line_num}: {error}") from None
    return {"columns": list(kept), "rows": found[:limit], "truncated": len(found) > limit}


@tool(name="data.read_json", kind="thread", effects="none")
def read_json(path: str, *, max_bytes: MaxBytes = _MOST) -> Any:
    """Read the value in a JSON file of the workspace. `DataError` says where it is no JSON.

    The workspace is the folder `COMAGENT_WORKSPACE` of the machine on which the task runs, or `workspace` in
    `COMAGENT_HOME`. The path is relative to it, not to the process file.
    """
    text = read_text(path, "utf-8-sig", max_bytes=max_bytes)
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise DataError(f"{path}, line {error.lineno}, column {error.colno}: {error.msg}") from None
    except RecursionError:
        raise DataError(f"{path} is nested too deep") from None
    except ValueError as error:
        raise DataError(f"{path}: {error}") from None


@tool(name=_WRITE_CSV, kind="thread", effects="some")
def write_csv(
    path: str,
    rows: list[dict[str, Any]],
    *,
    columns: list[str] | None = None,
    delimiter: Delimiter = ",",
) -> WrittenTable:
    """Write a CSV file (RFC 4180) of the workspace, in place of one that is there. The first line names the columns.

    `columns` are the ones to write, in this order; if it is left out, all keys of the rows, in the order in which they
    first appear. A key that a row lacks and null are an empty cell, true and false these words, lists and dictionaries
    JSON.
    """
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows for name in row))
    if not columns:
        raise ArgumentError(_WRITE_CSV, "there are no columns", "Give rows, or the columns of an empty table.")
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(columns)
    writer.writerows([_written(row.get(name)) for name in columns] for row in rows)
    return {**write_text(path, text.getvalue()), "columns": columns, "rows": len(rows)}


@tool(name="data.write_json", kind="thread", effects="some")
def write_json(path: str, value: Any) -> Written:
    """Write a value to a JSON file of the workspace, in place of one that is there."""
    return write_text(path, json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _kept(header: list[str], columns: list[str] | None, types: Mapping[str, Type], path: str) -> dict[str, int]:
    """The columns that are kept, and where they are in each row."""
    places = {name: place for place, name in enumerate(header)}
    if len(places) < len(header):
        twice = next(name for name in header if header.count(name) > 1)
        raise DataError(f'{path} has two columns that are called "{twice}": rename one')
    for name in (*(columns or ()), *types):
        if name not in places:
            remedy = did_you_mean(name, places) or f"It has: {', '.join(header)}."
            raise DataError(f'{path} has no column "{name}". {remedy}')
    return places if columns is None else {name: places[name] for name in columns}


def _rows(
    lines: Any, header: Sequence[str], kept: dict[str, int], types: Mapping[str, Type], path: str
) -> Iterator[dict[str, Any]]:
    readers = [(name, place, _READERS[types.get(name, "string")]) for name, place in kept.items()]
    for cells in lines:
        if not cells:
            continue  # an empty line
        if len(cells) != len(header):
            raise DataError(f"{path}, line {lines.line_num}: {len(cells)} cells, but there are {len(header)} columns")
        row = {}
        for name, place, read in readers:
            try:
                row[name] = read(cells[place])
            except ValueError:
                problem = f'{cells[place][:80]!r} in column "{name}" is no {types[name]}'
                raise DataError(f"{path}, line {lines.line_num}: {problem}") from None
        yield row


def _integer(text: str) -> int:
    if not _INTEGER.fullmatch(text.strip()):  # Python's own form also has underscores, and digits of other scripts
        raise ValueError(text)
    return int(text)


def _number(text: str) -> float:
    number = float(text)
    if "_" in text or not math.isfinite(number):
        raise ValueError(text)
    return number


def _boolean(text: str) -> bool:
    value = _BOOLEANS.get(text.strip().lower())
    if value is None:
        raise ValueError(text)
    return value


def _or_null(read: Callable[[str], Any]) -> Callable[[str], Any]:
    return lambda text: read(text) if text.strip() else None


_INTEGER = re.compile(r"[+-]?[0-9]+")
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_READERS: dict[Type, Callable[[str], Any]] = {
    "string": str,
    "integer": _or_null(_integer),
    "number": _or_null(_number),
    "boolean": _or_null(_boolean),
}


def _written(value: Any) -> Any:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
