"""Tools for files: what they do in the workspace, and that nothing leads them out of it."""

import os
import pickle
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from comagent.errors import ArgumentError
from comagent.tools import ToolContext
from comagent.tools.loading import load
from comagent.tools.registry import builtin_names, resolve
from comagent.tools.sizes import TooLargeError
from comagent.tools.workspace import PathRefusedError, folder

SECRET = "nobody may see this"


@pytest.fixture(autouse=True)
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "workspace"
    monkeypatch.setenv("COMAGENT_WORKSPACE", str(path))
    return path


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder beside the workspace, with a file in it."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret.txt").write_text(SECRET)
    return path


def call(name: str, **arguments: Any) -> Any:
    return load(resolve(f"files.{name}").code).call(arguments, ToolContext("job", "task", 1, (1, 1), "key"))


def test_text_is_read_as_it_was_written() -> None:
    text = "Grüße\r\n\n\0 no end of line"
    assert call("write_text", path="a/b/note.txt", text=text) == {"path": "a/b/note.txt", "bytes": len(text.encode())}
    assert call("read_text", path="a/./b//note.txt") == text
    call("write_text", path="a/b/note.txt", text="€", encoding="cp1252")
    assert call("read_text", path="a/b/note.txt", encoding="cp1252") == "€"


def test_the_workspace_is_in_comagents_folder_unless_it_is_set(
    tmp_path: Path, workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not workspace.exists()
    assert call("list") == {"entries": [], "complete": True}
    assert workspace.stat().st_mode & 0o777 == 0o700
    monkeypatch.delenv("COMAGENT_WORKSPACE")
    monkeypatch.setenv("COMAGENT_HOME", str(tmp_path / "home"))
    call("write_text", path="x", text="")
    assert (tmp_path / "home" / "workspace" / "x").read_text() == ""


def test_writing_leaves_nothing_but_the_file(workspace: Path) -> None:
    call("write_text", path="x", text="old")
    call("write_text", path="x", text="new")
    with pytest.raises(ValueError, match="the text for x in the workspace cannot be written as ascii"):
        call("write_text", path="x", text="é", encoding="ascii")
    (workspace / "folder").mkdir()
    with pytest.raises(IsADirectoryError, match="folder in the workspace is a folder, not a file"):
        call("write_text", path="folder", text="")
    assert (workspace / "x").read_text() == "new"
    assert sorted(path.name for path in workspace.iterdir()) == ["folder", "x"]


def test_a_reader_sees_the_old_file_or_the_new_one_whole() -> None:
    texts = {"a" * 200_000, "b" * 200_000}
    call("write_text", path="x", text=next(iter(texts)))
    stop = threading.Event()

    def write() -> None:
        while not stop.is_set():
            for text in texts:
                call("write_text", path="x", text=text)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {call("read_text", path="x") for _ in range(100)} <= texts
    finally:
        stop.set()
        writer.join()


def test_lines_are_read_in_parts(workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "log").write_bytes(b"one\r\ntwo\n\nfour")
    assert call("read_lines", path="log") == {"lines": ["one", "two", "", "four"], "next": None}
    assert call("read_lines", path="log", limit=2) == {"lines": ["one", "two"], "next": 3}
    assert call("read_lines", path="log", start=3, limit=2) == {"lines": ["", "four"], "next": None}
    assert call("read_lines", path="log", start=9) == {"lines": [], "next": None}
    with pytest.raises(ValueError, match="lines cannot be told apart in utf-16"):
        call("read_lines", path="log", encoding="utf-16")


def test_sizes_are_limited(workspace: Path) -> None:
    workspace.mkdir()
    (workspace / "big").write_bytes(b"12345\n" * 1_000)
    assert len(call("read_text", path="big", max_bytes=6_000)) == 6_000
    with pytest.raises(TooLargeError, match="big in the workspace is larger than 5,999 bytes"):
        call("read_text", path="big", max_bytes=5_999)
    assert len(call("read_lines", path="big", start=900, limit=10, max_bytes=60)["lines"]) == 10
    with pytest.raises(TooLargeError, match="line 910 of big"):
        call("read_lines", path="big", start=900, limit=11, max_bytes=60)
    (workspace / "endless").write_bytes(b"x" * 5_000 + b"\n")
    with pytest.raises(TooLargeError, match="line 1 of endless"):
        call("read_lines", path="endless", start=2, max_bytes=4_999)
    with pytest.raises(ArgumentError, match="max_bytes"):
        call("read_text", path="big", max_bytes=0)


def test_a_folder_is_listed(workspace: Path) -> None:
    for path in ("b.txt", "a/one.txt", "a/deep/two.txt", "c.csv"):
        call("write_text", path=path, text="12")
    (workspace / "link").symlink_to("b.txt")
    os.mkfifo(workspace / "pipe")
    (workspace / ".comagent-0123").touch()
    found = call("list")
    schema = resolve("files.list").returns
    assert schema is not None
    jsonschema.validate(found, schema)
    assert [(entry["path"], entry["kind"], entry["bytes"]) for entry in found["entries"]] == [
        ("a", "folder", 0),
        ("b.txt", "file", 2),
        ("c.csv", "file", 2),
        ("link", "link", 0),
        ("pipe", "other", 0),
    ]
    assert paths(call("list", pattern="*.txt", depth=9)) == ["a/deep/two.txt", "a/one.txt", "b.txt"]
    assert paths(call("list", path="a", depth=2)) == ["a/deep", "a/deep/two.txt", "a/one.txt"]
    assert call("list", limit=1) == {"entries": found["entries"][:1], "complete": False}
    with pytest.raises(FileNotFoundError, match="there is no folder nowhere in the workspace"):
        call("list", path="nowhere")
    with pytest.raises(NotADirectoryError, match=r"b\.txt in the workspace is no folder"):
        call("list", path="b.txt")


def test_names_that_are_no_unicode_are_listed(workspace: Path) -> None:
    workspace.mkdir()
    try:
        (workspace / os.fsdecode(b"caf\xe9")).touch()
    except OSError:
        pytest.skip("this file system takes Unicode only")
    assert paths(call("list")) == ["caf\\xe9"]


def test_what_is_deleted_is_gone_and_deleting_it_again_does_no_harm(workspace: Path) -> None:
    call("write_text", path="a/b", text="")
    assert call("exists", path="a/b")
    assert call("exists", path="a")
    assert call("exists", path="")
    with pytest.raises(OSError, match="the folder a in the workspace is not empty"):
        call("delete", path="a")
    assert [call("delete", path=path) for path in ("a/b", "a/b", "a", "a", "a/b")] == [True, False, True, False, False]
    assert not call("exists", path="a/b")
    with pytest.raises(PathRefusedError, match="is the workspace itself"):
        call("delete", path="./")


def test_what_is_not_there_is_told_so(workspace: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file x/y\.txt in the workspace|there is no folder x"):
        call("read_text", path="x/y.txt")
    workspace.mkdir(exist_ok=True)
    (workspace / "x").mkdir()
    with pytest.raises(FileNotFoundError, match=r"there is no file x/y\.txt in the workspace"):
        call("read_text", path="x/y.txt")
    with pytest.raises(IsADirectoryError, match="x in the workspace is a folder"):
        call("read_text", path="x")
    (workspace / "bytes").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="bytes in the workspace cannot be read as utf-8"):
        call("read_text", path="bytes")


@pytest.mark.parametrize("name", [name for name in builtin_names() if name.startswith("files.")])
@pytest.mark.parametrize(
    ("path", "problem"),
    [
        ("../outside/secret.txt", r'contains "\.\."'),
        ("a/../../outside/secret.txt", r'contains "\.\."'),
        ("/etc/passwd", "is an absolute path"),
        ("a\0b", "contains a zero byte"),
    ],
)
def test_a_path_that_would_lead_out_of_the_workspace_is_refused(
    name: str, path: str, problem: str, outside: Path
) -> None:
    extra = {"text": "mine"} if name == "files.write_text" else {}
    with pytest.raises(PathRefusedError, match=problem):
        call(name.removeprefix("files."), path=path, **extra)
    assert (outside / "secret.txt").read_text() == SECRET


def test_a_link_to_a_file_is_not_followed(workspace: Path, outside: Path) -> None:
    workspace.mkdir()
    link = workspace / "link"
    link.symlink_to(outside / "secret.txt")
    for name in ("read_text", "read_lines"):
        with pytest.raises(PathRefusedError, match='"link" is a link, and links are not followed'):
            call(name, path="link")
    assert not call("exists", path="link")
    call("write_text", path="link", text="mine")
    assert not link.is_symlink()
    link.unlink()
    link.symlink_to(outside / "secret.txt")
    assert call("delete", path="link")
    assert (outside / "secret.txt").read_text() == SECRET


def test_a_link_to_a_folder_is_not_followed(workspace: Path, outside: Path) -> None:
    workspace.mkdir()
    (workspace / "link").symlink_to(outside)
    for name, extra in (("read_text", {}), ("exists", {}), ("delete", {}), ("write_text", {"text": "mine"})):
        with pytest.raises(PathRefusedError, match='"link" is a link'):
            call(name, path="link/secret.txt", **extra)
    with pytest.raises(PathRefusedError, match='"link" is a link'):
        call("list", path="link")
    assert paths(call("list", depth=5)) == ["link"]
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_what_is_no_plain_file_is_not_read(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace.mkdir()
    os.mkfifo(workspace / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(workspace)  # whole paths are too long for addresses of sockets
        server.bind("socket")
        for path in ("pipe", "socket"):
            with pytest.raises(PathRefusedError, match="is no plain file"):
                call("read_text", path=path)


@pytest.mark.parametrize("name", ["read_text", "write_text", "list", "delete"])
def test_a_folder_that_is_exchanged_for_a_link_at_the_last_moment_leads_nowhere_else(
    name: str, workspace: Path, outside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call("write_text", path="x/secret.txt", text="inside")
    open_, exchanged = os.open, False

    def open_late(path: Any, *arguments: Any, **options: Any) -> int:
        nonlocal exchanged
        if path == "x" and not exchanged:
            exchanged = True
            (workspace / "x").rename(workspace / "y")
            (workspace / "x").symlink_to(outside)
        return open_(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_late)
    path, extra = ("x", {}) if name == "list" else ("x/secret.txt", {"text": "mine"} if name == "write_text" else {})
    with pytest.raises(PathRefusedError, match='"x" is a link'):
        call(name, path=path, **extra)
    assert exchanged
    assert (outside / "secret.txt").read_text() == SECRET


@pytest.fixture
def swapping(workspace: Path, outside: Path) -> Iterator[None]:
    """Meanwhile `workspace/x` is a folder and a link to the outside in turns, as quickly as can be."""
    inside, link = workspace / "inside", workspace / "link"
    inside.mkdir(parents=True)
    (inside / "secret.txt").write_text("inside")
    link.symlink_to(outside)
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            for real in (inside, link):
                try:
                    real.rename(workspace / "x")
                except OSError:  # a tool has made a folder of that name meanwhile
                    shutil.rmtree(workspace / "x", ignore_errors=True)
                else:
                    (workspace / "x").rename(real)

    swapper = threading.Thread(target=swap)
    swapper.start()
    yield
    stop.set()
    swapper.join()


@pytest.mark.usefixtures("swapping")
def test_a_folder_that_is_exchanged_for_a_link_leads_nowhere_else(outside: Path) -> None:
    seen: set[str] = set()
    for number in range(2_000):
        try:
            seen.add(call("read_text", path="x/secret.txt"))
            call("write_text", path=f"x/mine-{number % 10}", text="")
            call("delete", path=f"x/mine-{number % 10}")
            call("list", depth=3)
        except (PathRefusedError, FileNotFoundError, NotADirectoryError):
            continue
    assert seen <= {"inside"}
    assert [path.name for path in outside.iterdir()] == ["secret.txt"]


def test_descriptors_are_closed(workspace: Path) -> None:
    call("write_text", path="a/b/c", text="")
    with folder(("a", "b")) as descriptor:
        lowest = os.dup(descriptor)
        os.close(lowest)
    for path in ("a/b/c", "a/x/c", "a/b", "a/b/c/d"):
        try:
            call("read_text", path=path)
        except OSError:
            continue
    with folder(("a", "b")) as descriptor:
        again = os.dup(descriptor)
        os.close(again)
    assert again == lowest


@pytest.mark.parametrize("error", [PathRefusedError("x", "is a link"), TooLargeError("x", 5)])
def test_errors_survive_pickling(error: Exception) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))


def paths(listing: Any) -> list[str]:
    return [entry["path"] for entry in listing["entries"]]
