"""The one folder whose files tools may touch: `COMAGENT_WORKSPACE`, or `workspace` in `COMAGENT_HOME`.

Paths are relative to it, with `/` between their parts. Every folder on the way is opened from the one before, and links
are not followed: whoever exchanges a folder for a link while a tool runs leads it nowhere else.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from comagent.config import Config
from comagent.errors import ComAgentError

__all__ = ["PathRefusedError", "folder", "home", "is_link", "parts", "place"]

WORKSPACE = "COMAGENT_WORKSPACE"

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class PathRefusedError(ComAgentError):
    """A path leads, or could lead, out of the workspace, or names something that is no plain file or folder."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path = path
        self.problem = problem

    def __str__(self) -> str:
        return f'"{self.path}" {self.problem}. Name a path within the workspace, such as reports/today.txt.'


def home() -> Path:
    """The folder itself. It is made, for its owner alone, if it is not there."""
    given = os.environ.get(WORKSPACE)
    path = Path(given).expanduser() if given else Config().home / "workspace"
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path.absolute()


def parts(path: str) -> tuple[str, ...]:
    """The names that lead from the workspace to `path`; none if it is the workspace. Raises `PathRefusedError`."""
    if path.startswith("/"):
        raise PathRefusedError(path, "is an absolute path")
    if "\0" in path:
        raise PathRefusedError(path.replace("\0", "\\0"), "contains a zero byte")
    names = tuple(name for name in path.split("/") if name not in ("", "."))
    if ".." in names:
        raise PathRefusedError(path, 'contains ".."')
    return names


@contextmanager
def folder(names: Sequence[str], *, create: bool = False) -> Iterator[int]:
    """A descriptor of a folder in the workspace, open within. `create` makes the folders that are missing.

    `FileNotFoundError`, `NotADirectoryError` or `PathRefusedError` say which part of the path is at fault.
    """
    descriptor = os.open(home(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for number in range(len(names)):
            inner = _enter(names[: number + 1], descriptor, create=create)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _enter(names: Sequence[str], outer: int, *, create: bool) -> int:
    """The folder that is called by the last of `names`, within the one whose descriptor is `outer`."""
    name = names[-1]
    if create:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=outer)
    try:
        return os.open(name, _FOLDER, dir_fd=outer)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no folder {place(names)}") from None
    except OSError as error:
        if is_link(name, outer):
            raise PathRefusedError("/".join(names), "is a link, and links are not followed") from None
        if isinstance(error, NotADirectoryError):
            raise NotADirectoryError(f"{place(names)} is no folder") from None
        raise


def is_link(name: str, descriptor: int) -> bool:
    """Whether `name` is a symbolic link in the folder with this descriptor."""
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode)
    except OSError:
        return False


def place(names: Sequence[str]) -> str:
    """How a path is called in messages."""
    return f"{'/'.join(names) or '.'} in the workspace"
