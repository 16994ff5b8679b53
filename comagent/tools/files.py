"""Tools for text files. They touch nothing outside the workspace, and follow no links.

The workspace is `COMAGENT_WORKSPACE`, or the folder `workspace` in `COMAGENT_HOME`. It is a folder of the machine on
which a task runs: agents on several machines share files only if it lies on storage that they share.
"""

import errno
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from io import BufferedReader
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import TypedDict

from comagent.tools.base import tool
from comagent.tools.sizes import MIB, TooLargeError
from comagent.tools.workspace import PathRefusedError, folder, is_link, parts, place

__all__ = ["delete", "exists", "list_files", "opened", "read_lines", "read_text", "write_text"]

_MOST = 256 * MIB
_TEMPORARY = ".comagent-"
"""How files begin that are being written: they are never listed."""

MaxBytes = Annotated[int, Field(gt=0, le=_MOST)]


class Lines(TypedDict):
    lines: list[str]
    """Without their ends."""
    next: int | None
    """The number of the line after these; null where the file ends."""


class Written(TypedDict):
    path: str
    bytes: int


class Entry(TypedDict):
    path: str
    """From the workspace."""
    kind: Literal["file", "folder", "link", "other"]
    bytes: int
    """Of a file; else 0."""
    modified: str
    """ISO 8601, UTC."""


class Listing(TypedDict):
    entries: list[Entry]
    """Sorted by path."""
    complete: bool
    """False if there are more entries than were asked for."""


@tool(name="files.read_text", kind="thread", effects="none")
def read_text(path: str, encoding: str = "utf-8", *, max_bytes: MaxBytes = 10 * MIB) -> str:
    """Read a text file of the workspace.

    The workspace is the folder `COMAGENT_WORKSPACE` of the machine on which the task runs, or `workspace` in
    `COMAGENT_HOME`. Paths are relative to it; links are not followed.

    `TooLargeError` if it has more than `max_bytes`; `ValueError` if it is no text in that encoding.
    """
    with opened(path) as file:
        # One more than may be: the file may grow while it is read.
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise TooLargeError(place(parts(path)), max_bytes)
    return _decoded(data, encoding, path)


@tool(name="files.read_lines", kind="thread", effects="none")
def read_lines(
    path: str,
    start: Annotated[int, Field(ge=1)] = 1,
    *,
    limit: Annotated[int, Field(ge=1)] = 1_000,
    encoding: str = "utf-8",
    max_bytes: MaxBytes = 10 * MIB,
) -> Lines:
    """Read some lines of a text file of the workspace, which may be of any size.

    Lines are counted from 1. `next` is the `start` of the lines that follow. `TooLargeError` if the lines that are
    asked for, or one line before them, have more than `max_bytes`.
    """
    if "\n".encode(encoding) != b"\n":
        raise ValueError(f"lines cannot be told apart in {encoding}: use files.read_text")
    taken: list[str] = []
    size = 0
    with opened(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(max_bytes + 1), b""), 1):
            if number == start + limit:
                return {"lines": taken, "next": number}
            size = size + len(line) if number >= start else 0
            if max(size, len(line)) > max_bytes:
                raise TooLargeError(f"line {number} of {place(parts(path))}, with those before it,", max_bytes)
            if number >= start:
                taken.append(_decoded(line, encoding, path).removesuffix("\n").removesuffix("\r"))
    return {"lines": taken, "next": None}


@tool(name="files.write_text", kind="thread", effects="some")
def write_text(path: str, text: str, *, encoding: str = "utf-8") -> Written:
    """Write a text file of the workspace, in place of one that is there. Folders on the way are made.

    Others see the old file or the whole new one, never a part of it, and the new one survives a power failure. A link
    of that name is replaced, not followed. At most 256 MiB.
    """
    *above, name = _named(path)
    try:
        data = text.encode(encoding)
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"the text for {place((*above, name))} cannot be written as {encoding}: {error}") from None
    if len(data) > _MOST:
        raise TooLargeError(f"the text for {place((*above, name))}", _MOST)
    with folder(above, create=True) as descriptor:
        temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            with os.fdopen(os.open(temporary, flags, 0o666, dir_fd=descriptor), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            _rename(temporary, name, descriptor, path)
        except BaseException:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=descriptor)
            raise
        os.fsync(descriptor)
    return {"path": "/".join((*above, name)), "bytes": len(data)}


@tool(name="files.list", kind="thread", effects="none")
def list_files(
    path: str = "",
    pattern: str = "*",
    *,
    depth: Annotated[int, Field(ge=1, le=100)] = 1,
    limit: Annotated[int, Field(ge=1, le=100_000)] = 1_000,
) -> Listing:
    """List what is in a folder of the workspace: the workspace itself, unless a path is given.

    `pattern` is for names, with `*`, `?` and `[abc]`. With a `depth` of more than 1 the folders within are listed too,
    so many levels in all. Links are named, not followed.
    """
    entries = sorted(_walk(parts(path), pattern, depth), key=lambda entry: entry["path"])
    return {"entries": entries[:limit], "complete": len(entries) <= limit}


@tool(name="files.exists", kind="thread", cost="cheap", effects="none")
def exists(path: str) -> bool:
    """Whether there is a file or a folder of that path in the workspace. A link is neither."""
    *above, name = parts(path) or (".",)
    try:
        with folder(above) as descriptor:
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return False
    return stat.S_ISREG(mode) or stat.S_ISDIR(mode)


@tool(name="files.delete", kind="thread", cost="cheap", effects="some")
def delete(path: str) -> bool:
    """Delete a file or an empty folder of the workspace; true if it was there.

    Of a link, the link itself is deleted, not what it leads to.
    """
    *above, name = _named(path)
    try:
        with folder(above) as descriptor:
            mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
            if stat.S_ISDIR(mode):
                os.rmdir(name, dir_fd=descriptor)
            else:
                os.unlink(name, dir_fd=descriptor)
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        raise OSError(f"the folder {place((*above, name))} is not empty: delete what is in it first") from None
    return True


def _named(path: str) -> tuple[str, ...]:
    names = parts(path)
    if not names:
        raise PathRefusedError(path, "is the workspace itself")
    return names


@contextmanager
def opened(path: str) -> Iterator[BufferedReader]:
    """A plain file of the workspace, open for reading."""
    *above, name = _named(path)
    # Without O_NONBLOCK, opening a named pipe would wait until somebody writes to it.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with folder(above) as descriptor:
        try:
            handle = os.open(name, flags, dir_fd=descriptor)
        except FileNotFoundError:
            raise FileNotFoundError(f"there is no file {place((*above, name))}") from None
        except OSError as error:
            if is_link(name, descriptor):
                raise PathRefusedError(path, "is a link, and links are not followed") from None
            if error.errno == errno.ENXIO:
                raise PathRefusedError(path, "is no plain file") from None
            raise
    mode = os.fstat(handle).st_mode
    if not stat.S_ISREG(mode):
        os.close(handle)
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(f"{place((*above, name))} is a folder, not a file")
        raise PathRefusedError(path, "is no plain file")
    with os.fdopen(handle, "rb") as file:
        yield file


def _rename(temporary: str, name: str, descriptor: int, path: str) -> None:
    try:
        os.replace(temporary, name, src_dir_fd=descriptor, dst_dir_fd=descriptor)
    except IsADirectoryError:
        raise IsADirectoryError(f"{place(parts(path))} is a folder, not a file") from None


def _decoded(data: bytes, encoding: str, path: str) -> str:
    try:
        return data.decode(encoding)
    except (UnicodeError, LookupError) as error:
        raise ValueError(f"{place(parts(path))} cannot be read as {encoding}: {error}. Give its encoding.") from None


def _walk(names: tuple[str, ...], pattern: str, depth: int) -> Iterator[Entry]:
    rows: list[tuple[str, os.stat_result]] = []
    with folder(names) as descriptor, os.scandir(descriptor) as found:
        for entry in found:
            with suppress(FileNotFoundError):  # it was deleted meanwhile
                rows.append((entry.name, entry.stat(follow_symlinks=False)))
    for name, about in rows:
        if name.startswith(_TEMPORARY):
            continue
        if fnmatchcase(name, pattern):
            yield _entry((*names, name), about)
        if depth > 1 and stat.S_ISDIR(about.st_mode):
            with suppress(FileNotFoundError, NotADirectoryError, PathRefusedError):  # it was exchanged meanwhile
                yield from _walk((*names, name), pattern, depth - 1)


def _entry(names: tuple[str, ...], about: os.stat_result) -> Entry:
    kind: Literal["file", "folder", "link", "other"] = "other"
    if stat.S_ISREG(about.st_mode):
        kind = "file"
    elif stat.S_ISDIR(about.st_mode):
        kind = "folder"
    elif stat.S_ISLNK(about.st_mode):
        kind = "link"
    # Names that are no UTF-8 have no form in JSON.
    path = os.fsencode("/".join(names)).decode("utf-8", "backslashreplace")
    modified = datetime.fromtimestamp(about.st_mtime, UTC).isoformat(timespec="seconds")
    return {"path": path, "kind": kind, "bytes": about.st_size if kind == "file" else 0, "modified": modified}
