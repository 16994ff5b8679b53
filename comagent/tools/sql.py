"""Tools that ask and change databases: SQLite, and every other one whose driver for SQLAlchemy is installed.

A database is named by an SQLAlchemy URL, such as `postgresql+psycopg://user:password@host/shop`. The file of an SQLite
database is one of the workspace (`sqlite:///shop.db`), or has an absolute path (`sqlite:////data/shop.db`).
Values reach a statement only as parameters: `:name` in the statement, a value of that name beside it. A colon that is
none of these is written `\\:`. Errors name the database without user, password and options.
"""

import re
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote

from pydantic import Field
from pydantic_core import to_jsonable_python
from sqlalchemy import NullPool, bindparam, create_engine, make_url, text
from sqlalchemy.engine import URL, Connection, Engine
from sqlalchemy.exc import DBAPIError, NoSuchModuleError, SQLAlchemyError
from typing_extensions import TypedDict

from comagent.errors import ArgumentError, CannotConnectError
from comagent.nearest import did_you_mean
from comagent.tools.base import ToolContext, tool
from comagent.tools.workspace import home, parts

__all__ = ["Rows", "SqlError", "execute", "query"]

_QUERY, _EXECUTE = "sql.query", "sql.execute"
_MOST_ROWS = 100_000
_READ_ONLY = frozenset({"cockroachdb", "mariadb", "mysql", "oracle", "postgresql"})
"""Databases that know `SET TRANSACTION READ ONLY`."""
_PRAGMAS = frozenset(
    {
        *("foreign_key_list", "index_info", "index_list", "table_info", "table_list", "table_xinfo"),
        *("data_version", "page_size"),  # virtual tables ask for these
    }
)
"""What SQLite tells about a file without changing anything."""
_PLAIN = frozenset({bool, float, int, str, type(None)})
_SECRET = re.compile(r"pass|pwd|secret|token|key|odbc", re.IGNORECASE)
"""Names of a URL's options that may hold a credential."""


class SqlError(Exception):
    """A database refuses a statement, or its answer cannot be given."""


class Rows(TypedDict):
    columns: list[str]
    rows: list[dict[str, Any]]
    truncated: bool
    """Whether there were more rows than asked for."""


class Executed(TypedDict):
    rows_affected: int
    """As the database counts: 0 for statements that change no rows, such as `CREATE TABLE`."""


@tool(name=_QUERY, kind="thread", effects="none")
def query(
    url: str,
    statement: str,
    *,
    parameters: dict[str, Any] = {},  # noqa: B006  # never changed
    max_rows: Annotated[int, Field(ge=1, le=_MOST_ROWS)] = 1000,
) -> Rows:
    """Ask a database with one statement that changes nothing, and get at most `max_rows` rows.

    The URL is SQLAlchemy's: `postgresql+psycopg://user:password@host/shop`, `sqlite:///shop.db` for a file of the
    workspace, `sqlite:////data/shop.db` for any other.

    Values are given as parameters: `:name` in the statement, and a list for the `:names` in `IN :names`. SQLite files
    are opened read-only; elsewhere the transaction is read-only where the database knows that, and is rolled back in
    any case. Dates and times become ISO 8601 text, decimals numbers of double precision, binary data base64 text.
    """
    address = _address(_QUERY, url)
    bound = _bound(_QUERY, statement, parameters)
    with _connected(_QUERY, address, opened=_read_only(address)) as connection:
        _forbid_changes(connection)
        result = connection.execution_options(stream_results=True).execute(bound, parameters)
        if not result.returns_rows:
            raise SqlError(f"the statement returns no rows: {_EXECUTE} is for statements that change something")
        columns = list(result.keys())
        if len(set(columns)) < len(columns):
            twice = next(name for name in columns if columns.count(name) > 1)
            raise SqlError(f'two columns of the result are called "{twice}": give one of them another name with AS')
        found = result.fetchmany(max_rows + 1)
        rows = [dict(zip(columns, map(_json, row), strict=True)) for row in found[:max_rows]]
        connection.rollback()
    return {"columns": columns, "rows": rows, "truncated": len(found) > max_rows}


@tool(name=_EXECUTE, kind="thread", effects="some")
def execute(
    url: str,
    statement: str,
    *,
    parameters: dict[str, Any] | list[dict[str, Any]] = {},  # noqa: B006  # never changed
    context: ToolContext | None = None,
) -> Executed:
    """Change a database with one statement, in one transaction.

    The URL is SQLAlchemy's: `postgresql+psycopg://user:password@host/shop`, `sqlite:///shop.db` for a file of the
    workspace, `sqlite:////data/shop.db` for any other; an SQLite file that is not there is made.

    Values are given as parameters: `:name` in the statement. With a list of parameters the statement runs for each of
    them, all or none. An attempt that has passed its deadline does not commit. After a crash the statement may run a
    second time: write one that can, such as `INSERT ... ON CONFLICT DO NOTHING`.
    """
    address = _address(_EXECUTE, url)
    sets = parameters if isinstance(parameters, list) else [parameters]
    if not sets:
        return {"rows_affected": 0}
    bound = _bound(_EXECUTE, statement, *sets)
    with _connected(_EXECUTE, address, opened=address) as connection:
        result = connection.execute(bound, parameters)
        if result.returns_rows:
            raise SqlError(f"the statement returns rows, and is not committed: {_QUERY} is for reading")
        affected = max(0, result.rowcount)  # -1: not counted
        if context is not None and context.deadline_ms is not None and time.time() * 1000 > context.deadline_ms:
            raise TimeoutError("the statement took longer than the task's timeout, and was rolled back")
        connection.commit()
    return {"rows_affected": affected}


def _address(tool_name: str, url: str) -> URL:
    try:
        address = make_url(url)
        dialect = address.get_dialect()
    except (SQLAlchemyError, ValueError) as error:
        problem = "the URL names a kind of database that is not known here"
        if not isinstance(error, NoSuchModuleError):
            problem = "the URL cannot be read"  # its own words may hold the password
        raise ArgumentError(tool_name, problem, 'Write one like "sqlite:////folder/file.db".') from None
    except ImportError as error:
        raise _no_driver(tool_name, error) from None
    if dialect.is_async:
        raise ArgumentError(tool_name, f'driver "{address.drivername}" is for asyncio', "Name another driver.")
    return address.set(database=_place(address.database)) if _is_file(address) else address


def _is_file(address: URL) -> bool:
    return address.get_backend_name() == "sqlite" and address.database not in (None, "", ":memory:")


def _place(file: str | None) -> str:
    """The absolute path of an SQLite file."""
    return str(home().joinpath(*parts(file))) if file and not file.startswith("/") else str(file)


def _read_only(address: URL) -> URL:
    """The same database, opened such that its file is not written; the same URL where there is no file."""
    if not _is_file(address):
        return address
    options = {**address.query, "mode": "ro", "uri": "true"}
    return address.set(database=f"file:{quote(str(address.database))}", query=options)


def _forbid_changes(connection: Connection) -> None:
    kind = connection.dialect.name
    if kind == "sqlite":
        # `mode=ro` is for the one file: ATTACH and VACUUM INTO make others.
        driver: Any = connection.connection.driver_connection
        driver.set_authorizer(_authorize)
    elif kind in _READ_ONLY:
        connection.exec_driver_sql("SET TRANSACTION READ ONLY")


def _authorize(action: int, first: str | None, *_: str | None) -> int:
    forbidden = action == sqlite3.SQLITE_ATTACH or (action == sqlite3.SQLITE_PRAGMA and first not in _PRAGMAS)
    return sqlite3.SQLITE_DENY if forbidden else sqlite3.SQLITE_OK


def _bound(tool_name: str, statement: str, *sets: Mapping[str, Any]) -> Any:
    """The statement with its parameters, each of which is in every one of the sets."""
    statement = statement.strip().removesuffix(";").rstrip()
    if not statement:
        raise ArgumentError(tool_name, "the statement is empty", "Write one.")
    if ";" in statement:
        # What is a string or a comment differs between databases: where it matters, nothing is guessed.
        problem = "there is a semicolon inside the statement, which must be a single one"
        raise ArgumentError(tool_name, problem, "Give each statement a task, and text with semicolons as a parameter.")
    if "\0" in statement:
        raise ArgumentError(tool_name, "the statement holds a NUL character", "Give such text as a parameter.")
    bound = text(statement)
    wanted = bound.compile().params.keys()
    for given in sets:
        for name in wanted - given.keys():
            raise ArgumentError(tool_name, f'the statement has ":{name}", but there is no such parameter', _PARAMETERS)
        for name in given.keys() - wanted:
            remedy = did_you_mean(name, wanted) or _PARAMETERS
            raise ArgumentError(tool_name, f'parameter "{name}" is not in the statement', remedy)
    lists = [name for name in wanted if isinstance(sets[0][name], list)]
    return bound.bindparams(*(bindparam(name, expanding=True) for name in lists))


_PARAMETERS = "Write `:name` in the statement for each parameter."


@contextmanager
def _connected(tool_name: str, address: URL, *, opened: URL) -> Iterator[Connection]:
    """A connection whose errors say what the database said, but no credentials; it ends with a rollback."""
    shown = _shown(address)
    try:
        engine: Engine = create_engine(opened, poolclass=NullPool)
    except ImportError as error:
        raise _no_driver(tool_name, error) from None
    except (SQLAlchemyError, TypeError, ValueError) as error:
        raise ArgumentError(tool_name, f"the URL does not fit its database: {_clean(error, address)}") from None
    try:
        connection = engine.connect()
    except (SQLAlchemyError, TypeError, ValueError) as error:  # drivers also raise what options they do not know
        raise CannotConnectError(shown, _clean(error, address), "See that it is there and lets this user in.") from None
    with connection:
        try:
            yield connection
        except SQLAlchemyError as error:
            raise SqlError(f"{shown}: {_clean(error, address)}") from None
        except (TypeError, ValueError, OverflowError) as error:  # a parameter that the driver cannot send
            raise SqlError(f"{shown}: a parameter does not fit: {_clean(error, address)}") from None


def _shown(address: URL) -> str:
    """The database without credentials."""
    place = "" if address.host is None else address.host + (f":{address.port}" if address.port else "")
    return f"{address.get_backend_name()}://{place}/{address.database or ''}"


def _clean(error: Exception, address: URL) -> str:
    """What the driver said: without the statement, its parameters, and what may be a credential."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    if getattr(cause, "sqlite_errorcode", None) == sqlite3.SQLITE_AUTH:
        return f"the statement does more than read, and {_EXECUTE} is for that"
    message = " ".join(str(cause).split()) or type(cause).__name__
    options = [str(value) for name, value in address.query.items() if _SECRET.search(name)]
    for secret in filter(None, (address.password and str(address.password), *options)):
        for form in (secret, quote(secret, safe=""), quote(secret)):
            message = message.replace(form, "***")
    return message


def _no_driver(tool_name: str, error: ImportError) -> ArgumentError:
    problem = f'the driver for this kind of database is not installed: there is no module "{error.name}"'
    return ArgumentError(tool_name, problem, "Install it, or name another driver in the URL.")


def _json(value: Any) -> Any:
    if type(value) in _PLAIN:
        return value
    if isinstance(value, Decimal):
        return float(value)
    return to_jsonable_python(
        bytes(value) if isinstance(value, memoryview) else value,
        bytes_mode="base64",
        timedelta_mode="float",
        fallback=str,
    )
