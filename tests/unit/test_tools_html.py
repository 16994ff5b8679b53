"""`html.*`."""

from html.parser import HTMLParser
from typing import Any

import pytest

from comagent.errors import ArgumentError
from comagent.tools.loading import load
from comagent.tools.registry import resolve

HOSTILE = "<script>alert(1)</script> & \"'"


def call(tool: str, **arguments: Any) -> str:
    result = load(resolve(f"html.{tool}").code).call(arguments, None)
    assert isinstance(result, str)
    return result


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.words.append(data)


def read(text: str) -> tuple[list[str], list[str]]:
    """The elements in it, and the text between them."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    return reader.tags, reader.words


def test_markdown_becomes_html() -> None:
    tags, words = read(call("from_markdown", text="# Title\n\nsome *words*\n\n|a|b|\n|-|-|\n|1|2|\n"))
    assert tags[:3] == ["h1", "p", "em"]
    assert "table" in tags
    assert words == ["Title", "some ", "words", "a", "b", "1", "2"]


def test_html_in_markdown_is_shown_and_not_obeyed() -> None:
    tags, words = read(call("from_markdown", text=f"{HOSTILE}\n\n<div onclick='x'>\n\n[a](javascript:alert%281%29)"))
    assert set(tags) == {"p"}
    assert HOSTILE in "".join(words)


def test_markdown_that_is_too_long_is_refused() -> None:
    with pytest.raises(ArgumentError, match="longer than 1,048,576 characters"):
        call("from_markdown", text="x" * (2**20 + 1))


def test_a_table_of_dictionaries_has_all_their_keys_as_columns() -> None:
    table = call("from_table", rows=[{"a": 1, "b": None}, {"c": "x", "a": 2.5}], title="Figures")
    assert table == (
        "<table>\n<caption>Figures</caption>\n<thead>\n<tr><th>a</th><th>b</th><th>c</th></tr>\n</thead>\n<tbody>\n"
        '<tr><td class="number">1</td><td></td><td></td></tr>\n'
        '<tr><td class="number">2.5</td><td></td><td>x</td></tr>\n'
        "</tbody>\n</table>\n"
    )


def test_a_table_shows_only_the_columns_that_are_asked_for() -> None:
    _, words = read(call("from_table", rows=[{"a": "1", "b": "2"}], columns=["b", "z"]))
    assert words == ["b", "z", "2"]


def test_a_table_of_lists_has_a_cell_for_each_column() -> None:
    assert read(call("from_table", rows=[["x", True], [["y"], {"z": 1}]]))[1] == ["x", "true", '["y"]', '{"z": 1}']
    assert read(call("from_table", rows=[["x"]], columns=["name"]))[1] == ["name", "x"]
    with pytest.raises(ArgumentError, match="row 2 has 2 cells, and there are 1 columns"):
        call("from_table", rows=[["x"], ["y", "z"]], columns=["name"])


def test_a_table_without_rows_is_a_table() -> None:
    assert read(call("from_table", rows=[], columns=["a"])) == (["table", "thead", "tr", "th", "tbody"], ["a"])
    assert read(call("from_table", rows=[])) == (["table", "tbody"], [])


def test_nothing_in_a_table_is_obeyed() -> None:
    tags, words = read(call("from_table", rows=[{HOSTILE: HOSTILE}, {HOSTILE: [HOSTILE]}], title=HOSTILE))
    assert "script" not in tags
    assert words[:3] == [HOSTILE] * 3


def test_a_page_is_a_document_around_its_body() -> None:
    tags, words = read(call("page", body="<p>words</p>", title=HOSTILE))
    assert tags == ["html", "head", "meta", "title", "style", "body", "p"]
    assert (words[0], words[-1]) == (HOSTILE, "words")
