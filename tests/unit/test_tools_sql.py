"""`sql.query` and `sql.execute` on SQLite files."""

import sqlite3
import time
import traceback
from contextlib import closing
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comagent.errors import ArgumentError, CannotConnectError
from comagent.tools import ToolContext
from comagent.tools.loading import load
from comagent.tools.registry import resolve
from comagent.tools.sql import SqlError, execute, query
from comagent.tools.workspace import PathRefusedError


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A database with one table."""
    with closing(sqlite3.connect(tmp_path / "shop & more.db")) as connection:
        connection.execute("CREATE TABLE items (id INTEGER PRIMARY KEY, name TEXT, price REAL, picture BLOB)")
        connection.executemany("INSERT INTO items VALUES (?, ?, ?, NULL)", [(1, "pen", 1.5), (2, "ink", 9), (3, "", 0)])
        connection.commit()
    return f"sqlite:///{tmp_path}/shop & more.db"


def call(tool: str, **arguments: Any) -> Any:
    return load(resolve(tool).code).call(arguments, context(None))


def context(deadline_ms: int | None) -> ToolContext:
    return ToolContext("job", "task", 1, (1, 1), "job/task", deadline_ms)


def count(url: str) -> int:
    (row,) = query(url, "SELECT count(*) AS n FROM items")["rows"]
    return int(row["n"])


def test_a_query_gives_rows_by_the_names_of_their_columns(url: str) -> None:
    found = call("sql.query", url=url, statement="SELECT id, name FROM items WHERE id < :id", parameters={"id": 3})
    rows = [{"id": 1, "name": "pen"}, {"id": 2, "name": "ink"}]
    assert found == {"columns": ["id", "name"], "rows": rows, "truncated": False}
    jsonschema.validate(found, resolve("sql.query").returns or {})


def test_rows_beyond_the_limit_are_left_out_and_that_is_said(url: str) -> None:
    found = query(url, "SELECT id FROM items ORDER BY id;", max_rows=2)
    assert ([row["id"] for row in found["rows"]], found["truncated"]) == ([1, 2], True)
    assert query(url, "SELECT id FROM items", max_rows=3)["truncated"] is False
    with pytest.raises(ArgumentError, match="max_rows"):
        call("sql.query", url=url, statement="SELECT 1", max_rows=0)


def test_a_list_is_a_parameter_of_in(url: str) -> None:
    statement = "SELECT id FROM items WHERE id IN :ids ORDER BY id"
    assert [row["id"] for row in query(url, statement, parameters={"ids": [3, 1, 7]})["rows"]] == [1, 3]
    assert query(url, statement, parameters={"ids": []})["rows"] == []


def test_a_parameter_is_never_part_of_the_statement(url: str) -> None:
    name = "x' OR '1'='1'; DROP TABLE items; --"
    assert query(url, "SELECT * FROM items WHERE name = :name", parameters={"name": name})["rows"] == []
    execute(url, "UPDATE items SET name = :name WHERE id = 1", parameters={"name": name})
    assert query(url, "SELECT name FROM items WHERE id = 1")["rows"] == [{"name": name}]
    assert count(url) == 3


def test_values_that_json_does_not_know_are_given_in_a_form_that_it_does(url: str) -> None:
    statement = "SELECT x'00ff' AS picture, NULL AS empty, 9007199254740993 AS large, 0.1 AS price"
    assert query(url, statement)["rows"] == [
        {"picture": "AP8=", "empty": None, "large": 9007199254740993, "price": 0.1}
    ]


def test_a_query_without_rows_still_has_its_columns(url: str) -> None:
    assert query(url, "SELECT id FROM items WHERE 0") == {"columns": ["id"], "rows": [], "truncated": False}


def test_two_columns_of_one_name_are_refused(url: str) -> None:
    with pytest.raises(SqlError, match=r'two columns of the result are called "id".* with AS'):
        query(url, "SELECT id, id FROM items")


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO items (id) VALUES (9)",
        "DELETE FROM items RETURNING id",
        "WITH one AS (SELECT 1) UPDATE items SET price = 0",
        "DROP TABLE items",
        "VACUUM",
        "VACUUM INTO '{folder}/other.db'",
        "ATTACH '{folder}/other.db' AS other",
        "ATTACH 'file:{folder}/other.db?mode=rwc' AS other",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = WAL",
        "COMMIT",
    ],
)
def test_a_query_changes_nothing(url: str, statement: str, tmp_path: Path) -> None:
    file = Path(url.removeprefix("sqlite:///"))
    before = file.read_bytes()
    with pytest.raises(SqlError):
        query(url, statement.format(folder=tmp_path))
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("make", "ask"),
    [
        ("CREATE VIRTUAL TABLE found USING fts5(words)", "SELECT * FROM found WHERE found MATCH 'a'"),
        ("CREATE VIRTUAL TABLE found USING rtree(id, low, high)", "SELECT * FROM found"),
        ("CREATE VIEW found AS SELECT * FROM items", "SELECT * FROM found"),
        ("CREATE INDEX found ON items (name)", "PRAGMA index_list(items)"),
        ("CREATE INDEX found ON items (price)", "SELECT name FROM pragma_table_info('items')"),
    ],
)
def test_whatever_only_reads_can_be_asked(url: str, make: str, ask: str) -> None:
    execute(url, make)
    assert query(url, ask)["columns"] != []


def test_a_query_can_be_asked_while_another_connection_writes(url: str) -> None:
    execute(url, "UPDATE items SET price = 1")
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("DELETE FROM items")
        assert count(url) == 3


def test_execute_commits_and_says_how_many_rows_it_changed(url: str) -> None:
    assert call("sql.execute", url=url, statement="UPDATE items SET price = price + 1 WHERE id > 1") == {
        "rows_affected": 2
    }
    assert query(url, "SELECT sum(price) AS total FROM items")["rows"] == [{"total": 12.5}]


def test_execute_makes_the_file_that_is_not_there(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/new.db"
    assert execute(url, "CREATE TABLE items (id INTEGER)") == {"rows_affected": 0}
    assert count(url) == 0


def test_a_list_of_parameters_runs_the_statement_for_each(url: str) -> None:
    rows = [{"id": 10 + n, "name": f"item; {n}"} for n in range(3)]
    arguments = {"url": url, "statement": "INSERT INTO items (id, name) VALUES (:id, :name);"}
    assert call("sql.execute", **arguments, parameters=rows) == {"rows_affected": 3}
    assert call("sql.execute", **arguments, parameters=[]) == {"rows_affected": 0}
    assert count(url) == 6


def test_a_list_of_parameters_is_done_wholly_or_not_at_all(url: str) -> None:
    with pytest.raises(SqlError, match=r"UNIQUE constraint failed: items\.id"):
        execute(url, "INSERT INTO items (id) VALUES (:id)", parameters=[{"id": 50}, {"id": 1}])
    assert count(url) == 3


def test_an_attempt_that_has_passed_its_deadline_does_not_commit(url: str) -> None:
    past = int(time.time() * 1000) - 1000
    with pytest.raises(TimeoutError, match="rolled back"):
        execute(url, "DELETE FROM items", context=context(past))
    assert count(url) == 3
    assert execute(url, "DELETE FROM items", context=context(past + 3_600_000)) == {"rows_affected": 3}


def test_execute_refuses_statements_that_return_rows(url: str) -> None:
    with pytest.raises(SqlError, match=r"not committed: sql\.query is for reading"):
        execute(url, "DELETE FROM items RETURNING id")
    assert count(url) == 3


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("SELECT 1; SELECT 2", "a semicolon inside the statement"),
        ("SELECT 1; DROP TABLE items;", "a semicolon inside the statement"),
        ("SELECT ';'", "text with semicolons as a parameter"),
        (" ; ", "the statement is empty"),
        ("", "the statement is empty"),
        ("SELECT '\0'", "a NUL character"),
    ],
)
def test_anything_but_one_statement_is_refused(url: str, statement: str, problem: str) -> None:
    for tool in (query, execute):
        with pytest.raises(ArgumentError, match=problem):
            tool(url, statement)
    assert count(url) == 3


def test_parameters_and_statement_must_fit_each_other(url: str) -> None:
    with pytest.raises(ArgumentError, match='the statement has ":name", but there is no such parameter'):
        query(url, "SELECT :name")
    with pytest.raises(ArgumentError, match=r'parameter "nmae" is not in the statement\. Did you mean "name"'):
        query(url, "SELECT :name", parameters={"name": 1, "nmae": 2})
    with pytest.raises(ArgumentError, match='":id"'):
        execute(url, "DELETE FROM items WHERE id = :id", parameters=[{"id": 1}, {}])
    with pytest.raises(SqlError, match="type 'dict' is not supported"):
        query(url, "SELECT :name", parameters={"name": {}})
    with pytest.raises(SqlError, match=r"a parameter does not fit: .*too large"):
        query(url, "SELECT :name", parameters={"name": 2**70})
    assert query(url, r"SELECT '\:name' AS text")["rows"] == [{"text": ":name"}]


def test_what_the_database_says_is_in_the_error_without_the_parameters(url: str) -> None:
    with pytest.raises(SqlError) as refused:
        query(url, "SELECT * FROM itmes WHERE name = :name", parameters={"name": "confidential"})
    assert str(refused.value) == f"{url}: no such table: itmes"
    assert "confidential" not in "".join(traceback.format_exception(refused.value, limit=-1))


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("COMAGENT_WORKSPACE", str(tmp_path / "workspace"))
    return tmp_path / "workspace"


def test_a_relative_file_is_one_of_the_workspace(workspace: Path) -> None:
    execute("sqlite:///shop.db", "CREATE TABLE items (id INTEGER)")
    assert [file.name for file in workspace.iterdir()] == ["shop.db"]
    assert count("sqlite:///shop.db") == 0
    with pytest.raises(PathRefusedError):
        query("sqlite:///../shop.db", "SELECT 1")
    assert query("sqlite://", "SELECT 1 AS one")["rows"] == [{"one": 1}]


def test_a_query_makes_no_file(tmp_path: Path) -> None:
    with pytest.raises(CannotConnectError, match="unable to open database file"):
        query(f"sqlite:///{tmp_path}/none.db", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("nonsense", "the URL cannot be read"),
        ("postgresql://me:S3cret@host:S3cret/shop", "the URL cannot be read"),
        ("nosuch://me:S3cret@host/shop", "names a kind of database that is not known here"),
        ("postgresql+asyncpg://me:S3cret@host/shop", "is for asyncio"),
        ("mssql+pymssql://me:S3cret@host/shop", 'there is no module "pymssql"'),
        ("sqlite:////tmp/shop.db?password=S3cret&timeout=S3cret", "the URL does not fit its database"),
    ],
)
def test_a_url_that_is_of_no_use_is_told_so_without_its_credentials(url: str, problem: str) -> None:
    for tool in (query, execute):
        with pytest.raises(ArgumentError, match=problem) as refused:
            tool(url, "SELECT 1")
        assert "S3cret" not in "".join(traceback.format_exception(refused.value))


def test_both_tools_tell_the_truth_about_themselves() -> None:
    assert [(spec.kind, spec.effects) for spec in map(resolve, ("sql.query", "sql.execute"))] == [
        ("thread", "none"),
        ("thread", "some"),
    ]
