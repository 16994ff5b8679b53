"""`data.*`, and the tools of text that are not for templates."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from comagent.errors import ArgumentError
from comagent.tools import data
from comagent.tools.data import DataError
from comagent.tools.loading import load
from comagent.tools.registry import resolve
from comagent.tools.sizes import TooLargeError
from comagent.tools.workspace import PathRefusedError

EXAMPLES = Path(__file__).parents[2] / "configs" / "data"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMAGENT_WORKSPACE", str(tmp_path))
    return tmp_path


def call(tool: str, **arguments: Any) -> Any:
    spec = resolve(tool)
    value = load(spec.code).call(arguments, None)
    if spec.returns is not None:
        jsonschema.validate(value, spec.returns)
    return value


def write(workspace: Path, text: str, encoding: str = "utf-8") -> str:
    (workspace / "table.csv").write_text(text, encoding=encoding, newline="")
    return "table.csv"


def test_a_csv_file_becomes_rows(workspace: Path) -> None:
    path = write(workspace, 'name,note\r\npen,"a ""b"", c"\r\n\r\nink,"two\nlines"\r\n')
    rows = [{"name": "pen", "note": 'a "b", c'}, {"name": "ink", "note": "two\nlines"}]
    assert call("data.read_csv", path=path) == {"columns": ["name", "note"], "rows": rows, "truncated": False}


def test_columns_are_picked_and_have_types(workspace: Path) -> None:
    path = write(workspace, "a;b;c;d\n 7 ;1.5;Yes;x\n;;;\n-8;1e3;0;007\n")
    types = {"a": "integer", "b": "number", "c": "boolean"}
    assert call("data.read_csv", path=path, delimiter=";", columns=["d", "b", "a", "c"], types=types)["rows"] == [
        {"d": "x", "b": 1.5, "a": 7, "c": True},
        {"d": "", "b": None, "a": None, "c": None},
        {"d": "007", "b": 1000.0, "a": -8, "c": False},
    ]


def test_rows_beyond_the_limit_are_left_out_and_that_is_said(workspace: Path) -> None:
    path = write(workspace, "a\n1\n2\n3\n")
    assert call("data.read_csv", path=path, limit=2) == {
        "columns": ["a"],
        "rows": [{"a": "1"}, {"a": "2"}],
        "truncated": True,
    }
    assert call("data.read_csv", path=path, limit=3)["truncated"] is False


def test_a_byte_order_mark_and_other_encodings_are_understood(workspace: Path) -> None:
    assert call("data.read_csv", path=write(workspace, "naïve\n1\n", "utf-8-sig"))["columns"] == ["naïve"]
    path = write(workspace, "naïve\n1\n", "cp1252")
    assert call("data.read_csv", path=path, encoding="cp1252")["columns"] == ["naïve"]
    with pytest.raises(ValueError, match="Give its encoding"):
        call("data.read_csv", path=path)


@pytest.mark.parametrize(
    ("text", "arguments", "problem"),
    [
        ("", {}, "table.csv is empty: its first line must name the columns"),
        ("a,b\n1,2\n3\n", {}, "table.csv, line 3: 1 cells, but there are 2 columns"),
        ("a,b\n1,2,3\n", {}, "table.csv, line 2: 3 cells, but there are 2 columns"),
        ("a,a\n", {}, 'table.csv has two columns that are called "a"'),
        ("a\n1\n2x\n", {"types": {"a": "integer"}}, """table.csv, line 3: '2x' in column "a" is no integer"""),
        ("a\n1_0\n", {"types": {"a": "integer"}}, """'1_0' in column "a" is no integer"""),
        ("a\nnan\n", {"types": {"a": "number"}}, """'nan' in column "a" is no number"""),
        ("a\nperhaps\n", {"types": {"a": "boolean"}}, """'perhaps' in column "a" is no boolean"""),
        ("price\n1\n", {"columns": ["prize"]}, 'table.csv has no column "prize". Did you mean "price"?'),
        ("price\n1\n", {"types": {"colour": "string"}}, 'table.csv has no column "colour". It has: price.'),
        ('a\n"1\n', {}, "table.csv, line 2: unexpected end of data"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_told_with_its_place(
    workspace: Path, text: str, arguments: dict[str, Any], problem: str
) -> None:
    with pytest.raises(DataError, match=re.escape(problem)):
        call("data.read_csv", path=write(workspace, text), **arguments)


def test_arguments_that_cannot_work_are_refused(workspace: Path) -> None:
    for arguments in ({"delimiter": ""}, {"delimiter": '"'}, {"delimiter": "||"}, {"limit": 0}):
        with pytest.raises(ArgumentError):
            call("data.read_csv", path=write(workspace, "a\n"), **arguments)
    with pytest.raises(ArgumentError, match="types"):
        call("data.read_csv", path=write(workspace, "a\n"), types={"a": "date"})


@pytest.mark.parametrize("tool", ["data.read_csv", "data.read_json"])
def test_only_files_of_the_workspace_are_read_and_no_large_ones(tool: str, workspace: Path) -> None:
    (workspace / "link").symlink_to("/etc/passwd")
    for path in ("/etc/passwd", "../x.csv", "link"):
        with pytest.raises(PathRefusedError):
            call(tool, path=path)
    with pytest.raises(FileNotFoundError, match=r"there is no file none\.csv in the workspace"):
        call(tool, path="none.csv")
    with pytest.raises(TooLargeError):
        call(tool, path=write(workspace, "1234"), max_bytes=3)


def test_rows_become_a_csv_file(workspace: Path) -> None:
    rows = [{"a": 1, "b": None}, {"b": True, "c": ["x", 1]}, {"a": 'y "z", é', "c": 2.5}]
    assert call("data.write_csv", path="out/table.csv", rows=rows) == {
        "path": "out/table.csv",
        "bytes": 52,
        "columns": ["a", "b", "c"],
        "rows": 3,
    }
    written = (workspace / "out/table.csv").read_bytes().decode()
    assert written == 'a,b,c\r\n1,,\r\n,true,"[""x"", 1]"\r\n"y ""z"", é",,2.5\r\n'


def test_only_the_columns_that_are_asked_for_are_written(workspace: Path) -> None:
    call("data.write_csv", path="t.csv", rows=[{"a": 1, "b": 2}], columns=["b", "z"], delimiter="\t")
    assert (workspace / "t.csv").read_bytes() == b"b\tz\r\n2\t\r\n"
    call("data.write_csv", path="t.csv", rows=[], columns=["b"])
    assert (workspace / "t.csv").read_bytes() == b"b\r\n"
    with pytest.raises(ArgumentError, match="there are no columns"):
        call("data.write_csv", path="t.csv", rows=[])


cells = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))


@given(st.lists(st.fixed_dictionaries({"a": cells, "b, c": cells}), max_size=5), st.sampled_from(",;\t| "))
def test_text_that_was_written_is_read_again_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], delimiter: str
) -> None:
    columns = ["a", "b, c"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMAGENT_WORKSPACE", str(tmp_path_factory.getbasetemp()))
        data.write_csv("t.csv", rows, columns=columns, delimiter=delimiter)
        assert data.read_csv("t.csv", delimiter) == {"columns": columns, "rows": rows, "truncated": False}


def test_a_value_is_written_as_json_and_read_again(workspace: Path) -> None:
    value = {"é": [1, 2.5, None, True, {"x": "\u2028"}]}
    assert call("data.write_json", path="v.json", value=value)["path"] == "v.json"
    assert json.loads((workspace / "v.json").read_bytes()) == value
    assert call("data.read_json", path="v.json") == value


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{"a": 1,\n "b"}', "v.json, line 2, column 5"),
        ("", "v.json, line 1, column 1"),
        ("[NaN]", "v.json: NaN is no JSON"),
        ("[" * 100_000, "v.json is nested too deep"),
    ],
)
def test_what_is_no_json_is_told_so(workspace: Path, text: str, problem: str) -> None:
    (workspace / "v.json").write_text(text)
    with pytest.raises(DataError, match=re.escape(problem)):
        call("data.read_json", path="v.json")


def test_what_json_does_not_know_is_not_written(workspace: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        call("data.write_json", path="v.json", value=[float("nan")])
    assert list(workspace.iterdir()) == []


def test_the_example_table_can_be_read_where_its_folder_is_the_workspace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMAGENT_WORKSPACE", str(EXAMPLES))
    types = {"order_id": "integer", "quantity": "integer", "unit_price": "number", "paid": "boolean"}
    rows = call("data.read_csv", path="orders.csv", types=types)["rows"]
    assert rows[0]["quantity"] * rows[0]["unit_price"] == pytest.approx(598.8)
    assert [row["order_id"] for row in rows if None in row.values()] == [1010, 1018]


def test_text_is_split() -> None:
    assert call("text.split", text="a, b,,c", separator=",") == ["a", " b", "", "c"]
    assert call("text.split", text=" some  words\n") == ["some", "words"]
    assert call("text.split", text="a=b=c", separator="=", limit=2) == ["a", "b=c"]
    assert call("text.split", text="a=b", separator="=", limit=1) == ["a=b"]
    with pytest.raises(ArgumentError, match="separator"):
        call("text.split", text="a", separator="")


def test_parts_are_joined() -> None:
    assert call("text.join", parts=["a", 1, True, None, {"x": "é"}], separator=", ") == 'a, 1, true, null, {"x": "é"}'
    assert call("text.join", parts=[]) == ""
    with pytest.raises(ArgumentError, match="more than 67,108,864 characters"):
        call("text.join", parts=[""] * 70, separator="x" * 2**20)


def test_text_is_truncated() -> None:
    assert call("text.truncate", text="some words", length=10) == "some words"
    assert call("text.truncate", text="some words", length=6) == "some…"
    assert call("text.truncate", text="some words", length=9, ending=" [...]") == "som [...]"
    assert call("text.truncate", text="some words", length=2, ending="[...]") == "[."
    assert call("text.truncate", text="some words", length=0) == ""


def test_a_pattern_is_found_everywhere() -> None:
    found = call("text.match", text="a=1, b=", pattern=r"(?P<key>\w)=(\d)?")
    assert found == [
        {"text": "a=1", "start": 0, "groups": ["a", "1"], "names": {"key": "a"}},
        {"text": "b=", "start": 5, "groups": ["b", None], "names": {"key": "b"}},
    ]
    assert call("text.match", text="aaa", pattern="a", limit=2)[1]["start"] == 1
    assert call("text.match", text="aaa", pattern="b") == []
    with pytest.raises(ArgumentError, match="the pattern has a mistake at character 2"):
        call("text.match", text="a", pattern="a(")


def test_patterns_are_matched_where_they_harm_nobody() -> None:
    assert resolve("text.match").kind == "process"
