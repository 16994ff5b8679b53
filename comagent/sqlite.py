"""SQLite files of ComAgent: opened with the durability it promises, refused when they are something else."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from comagent.errors import StoreError

_AGAIN_S = 0.005


class Format(NamedTuple):
    """What one kind of file holds."""

    name: str
    application_id: int
    """Marks the file as ours; SQLite keeps it in the header."""
    create: tuple[str, ...]
    """Statements that make the newest schema in an empty file."""
    upgrades: tuple[tuple[str, ...], ...] = ()
    """The statements that lead from version 1 to 2, from 2 to 3, and so on."""

    @property
    def version(self) -> int:
        return len(self.upgrades) + 1


def connect(path: Path, timeout_s: float) -> sqlite3.Connection:
    """A connection in autocommit mode, for one thread at a time, that waits `timeout_s` for other writers."""
    connection = sqlite3.connect(path, timeout=timeout_s, isolation_level=None, check_same_thread=False)
    try:
        # WAL defaults to a lesser promise in some builds; macOS flushes the drive's own cache only when asked to.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA fullfsync = ON")
    except BaseException:
        connection.close()
        raise
    return connection


def open_file(path: Path, file_format: Format, *, timeout_s: float) -> sqlite3.Connection:
    """Connect to a file that is created or upgraded where needed; several processes may do so at once.

    Raises `StoreError`, and leaves the file as it is, when it is damaged, another program's, or of a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        problem = f"{path.parent} cannot be made a folder: {error.strerror}"
        raise StoreError(problem, "Choose another place with COMAGENT_HOME or COMAGENT_STORE_URL.") from error
    with explained(path):
        connection = connect(path, timeout_s)
        try:
            _version(connection, path, file_format)
            _use_write_ahead_log(connection, timeout_s)
            with transaction(connection):
                _bring_up_to_date(connection, path, file_format)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Holds the file's write lock from the start: whatever is read inside can't have changed at the commit."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors, a full disk among them, have rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turns the errors of SQLite into `StoreError`s that say what to do."""
    try:
        yield
    except sqlite3.Error as error:
        raise store_error(path, error) from error


def store_error(path: Path, error: BaseException) -> StoreError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest of it is detail
    problem, remedy = _EXPLANATIONS.get(code, ("cannot be used", ""))
    return StoreError(f"{path} {problem} ({error})", remedy)


_ELSEWHERE = "choose another place with COMAGENT_HOME or COMAGENT_STORE_URL."
_DAMAGED = (
    "is damaged, or not a database",
    f"Restore it from a backup or move it away, together with its -wal and -shm files; or {_ELSEWHERE}",
)
_LOCKED = ("stayed locked by another process", "Try again; if it goes on, see which process has the file open.")
_EXPLANATIONS = {
    sqlite3.SQLITE_BUSY: _LOCKED,
    sqlite3.SQLITE_LOCKED: _LOCKED,
    sqlite3.SQLITE_READONLY: ("cannot be written", f"Let this user write the file and its folder, or {_ELSEWHERE}"),
    sqlite3.SQLITE_PERM: ("cannot be accessed", f"Let this user write the file and its folder, or {_ELSEWHERE}"),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", f"Let this user write the file and its folder, or {_ELSEWHERE}"),
    sqlite3.SQLITE_FULL: ("finds no room on its disk", "Free some space. What was acknowledged is safe."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written", "Check the disk. What was acknowledged is safe on it."),
    sqlite3.SQLITE_CORRUPT: _DAMAGED,
    sqlite3.SQLITE_NOTADB: _DAMAGED,
}


def _version(connection: sqlite3.Connection, path: Path, file_format: Format) -> int:
    """The version of the schema in the file, 0 if the file is empty."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    empty = connection.execute("SELECT NOT EXISTS (SELECT 1 FROM sqlite_master)").fetchone() == (1,)
    if application_id != file_format.application_id and not (empty and application_id == version == 0):
        raise StoreError(f"{path} is not {file_format.name}, but another program's database", _ELSEWHERE.capitalize())
    if version > file_format.version:
        problem = f"{path} was written by a newer ComAgent (schema {version}; this one knows {file_format.version})"
        raise StoreError(problem, f"Upgrade ComAgent, or {_ELSEWHERE}")
    return int(version)


def _use_write_ahead_log(connection: sqlite3.Connection, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            # The only statement that does not wait for others by itself.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_AGAIN_S)
        else:
            return


def _bring_up_to_date(connection: sqlite3.Connection, path: Path, file_format: Format) -> None:
    version = _version(connection, path, file_format)
    if version == file_format.version:
        return
    steps = file_format.upgrades[version - 1 :] if version else (file_format.create,)
    for step in steps:
        for statement in step:
            connection.execute(statement)
    connection.execute(f"PRAGMA application_id = {file_format.application_id}")
    connection.execute(f"PRAGMA user_version = {file_format.version}")
