"""Tools that make HTML, safe to send and to show: whatever they are given as text stays text."""

import functools
import json
from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt

from comagent.errors import ArgumentError
from comagent.tools.base import tool

__all__ = ["from_markdown", "from_table", "page"]

_LONGEST = 2**20
_TABLE = "html.from_table"
_STYLE = (
    "body{font-family:system-ui,sans-serif;line-height:1.5;max-width:60rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}caption{font-weight:bold;text-align:left}"
    "th,td{border:1px solid #ccc;padding:.25rem .5rem;text-align:left;vertical-align:top}th{background:#f4f4f4}"
    "td.number{text-align:right}pre{overflow:auto;background:#f4f4f4;padding:.5rem}"
)


@tool(name="html.from_markdown", kind="thread", effects="none")
def from_markdown(text: str) -> str:
    """Markdown (CommonMark, with tables and strikethrough) as a fragment of HTML.

    HTML in the text is shown as it is written, and links that would run a script stay text. At most 1 MiB.
    """
    if len(text) > _LONGEST:
        raise ArgumentError("html.from_markdown", f"the text is longer than {_LONGEST:,} characters", "Shorten it.")
    return str(_markdown().render(text))


@tool(name=_TABLE, kind="thread", cost="cheap", effects="none")
def from_table(
    rows: list[dict[str, Any] | list[Any]], columns: list[str] | None = None, *, title: str | None = None
) -> str:
    """A table of HTML, with numbers on the right and null as an empty cell.

    Rows are dictionaries, of which `columns` are shown (all, in the order in which they first appear, if it is left
    out; a key that a row lacks is an empty cell), or lists with a cell for each of the `columns`, if these are given.
    """
    if columns is None:
        columns = list(dict.fromkeys(name for row in rows if isinstance(row, dict) for name in row)) or None
    head = "".join(f"<th>{escape(name)}</th>" for name in columns or ())
    body = "".join(
        f"<tr>{''.join(map(_cell, _cells(row, columns, number)))}</tr>\n" for number, row in enumerate(rows, 1)
    )
    caption = f"<caption>{escape(title)}</caption>\n" if title else ""
    titles = f"<thead>\n<tr>{head}</tr>\n</thead>\n" if columns else ""
    return f"<table>\n{caption}{titles}<tbody>\n{body}</tbody>\n</table>\n"


@tool(name="html.page", kind="inline", cost="cheap", effects="none")
def page(body: str, title: str = "") -> str:
    """A whole document around fragments of HTML, with a plain style: to be mailed, or opened in a browser.

    The body is taken as it is: make it with the other tools of this family. The title is text.
    """
    return (
        f'<!DOCTYPE html>\n<html>\n<head>\n<meta charset="utf-8">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


@functools.cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("js-default")  # the preset in which HTML is text


def _cells(row: dict[str, Any] | list[Any], columns: Sequence[str] | None, number: int) -> list[Any]:
    if isinstance(row, dict):
        return [row.get(name) for name in columns or ()]
    if columns is not None and len(row) != len(columns):
        problem = f"row {number} has {len(row)} cells, and there are {len(columns)} columns"
        raise ArgumentError(_TABLE, problem, "Give each row a cell for each column.")
    return row


def _cell(value: Any) -> str:
    if value is None:
        return "<td></td>"
    shown = escape(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return f'<td class="number">{shown}</td>' if is_number else f"<td>{shown}</td>"
