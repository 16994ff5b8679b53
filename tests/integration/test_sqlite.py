"""Files: what happens when they are damaged, full, read-only, of another program or of another version."""

import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from comagent.coordination import EmbeddedCoordination
from comagent.errors import StoreError
from comagent.sqlite import Format, open_file
from comagent.store import Committed, JobCommit, JobRow, Outcome, Stale, Store, store_at

EPOCH = (1, 1)


def job(job_id: str) -> JobRow:
    return JobRow(job_id, "t", "p", None, "s", "etl", "f00", b"{}", b"{}", b"{}", "/", 0, job_id, "beef", 1)


def outcomes(count: int, result: bytes = b"1") -> list[Outcome]:
    return [Outcome(f"t{n}", "1.1.1", 1, "succeeded", result, None, None, 1, 2) for n in range(count)]


def opened(path: Path) -> Store:
    store = store_at(f"sqlite:///{path}", timeout_s=0.2)
    store.open()
    return store


@pytest.fixture
def visible_folder() -> Iterator[Path]:
    """A folder that other users can reach, which those of pytest are not."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def as_nobody() -> Iterator[None]:
    """As somebody whom permissions stop, which root is not."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)


@contextmanager
def a_busy_thread() -> Iterator[None]:
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            sum(range(100))

    thread = threading.Thread(target=spin)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    opened(tmp_path / "a" / "b" / "comagent.db").close()
    assert (tmp_path / "a" / "b" / "comagent.db").exists()


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"cannot be made a folder.*COMAGENT_HOME"):
        opened(tmp_path / "file" / "comagent.db")


@pytest.mark.parametrize("content", [b"not a database " * 1000, b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "comagent.db"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"comagent\.db is damaged, or not a database.*backup"):
        opened(path)
    assert path.read_bytes() == content


def test_damage_found_later_is_explained_too(tmp_path: Path) -> None:
    path = tmp_path / "comagent.db"
    store = opened(path)
    store.commit("s", 1, [JobCommit("j", EPOCH, admit=job("j"), outcomes=outcomes(5_000, b"x" * 200))])
    store.close()
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xff" * 60 * 4096)
    store = opened(path)
    with pytest.raises(StoreError, match="damaged"):
        store.progress("j")
    store.close()


def test_another_programs_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "comagent.db"
    with sqlite3.connect(path) as foreign:
        foreign.execute("CREATE TABLE jobs (mine TEXT)")
    foreign.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="another program's database"):
        opened(path)
    assert path.read_bytes() == before


def test_the_coordination_file_is_no_store(tmp_path: Path) -> None:
    coordination = EmbeddedCoordination(tmp_path / "coordination.db")
    coordination.open()
    with pytest.raises(StoreError, match="is not a ComAgent store"):
        opened(tmp_path / "coordination.db")
    coordination.close()


def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "comagent.db"
    opened(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute("PRAGMA user_version = 99")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer ComAgent \(schema 99; .*Upgrade"):
        opened(path)
    assert path.read_bytes() == before


def test_an_older_schema_is_brought_up_to_date_once(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    old = Format("a file", 7, create=("CREATE TABLE a (x)", "INSERT INTO a VALUES (1)"))
    new = Format("a file", 7, create=(), upgrades=(("ALTER TABLE a ADD y",), ("UPDATE a SET y = x + 1",)))
    open_file(path, old, timeout_s=1).close()
    for _ in range(2):
        connection = open_file(path, new, timeout_s=1)
        assert connection.execute("SELECT x, y FROM a").fetchall() == [(1, 2)]
        connection.close()
    with pytest.raises(StoreError, match="schema 3; this one knows 1"):
        open_file(path, old, timeout_s=1)


def test_an_upgrade_that_fails_leaves_the_old_schema(tmp_path: Path) -> None:
    path = tmp_path / "file.db"
    old = Format("a file", 7, create=("CREATE TABLE a (x)",))
    broken = Format("a file", 7, create=(), upgrades=(("ALTER TABLE a ADD y", "ALTER TABLE nowhere ADD y"),))
    open_file(path, old, timeout_s=1).close()
    with pytest.raises(StoreError, match="nowhere"):
        open_file(path, broken, timeout_s=1)
    connection = open_file(path, old, timeout_s=1)
    assert [name for _, name, *_ in connection.execute("PRAGMA table_info(a)")] == ["x"]
    connection.close()


def test_a_read_only_file_is_refused(visible_folder: Path) -> None:
    path = visible_folder / "comagent.db"
    opened(path).close()
    path.chmod(0o444)
    visible_folder.chmod(0o555)
    with as_nobody(), pytest.raises(StoreError, match=r"cannot be .*Let this user write"):
        opened(path)
    visible_folder.chmod(0o755)


def test_a_read_only_folder_is_refused(visible_folder: Path) -> None:
    visible_folder.chmod(0o555)
    with as_nobody(), pytest.raises(StoreError, match=r"cannot be opened.*Let this user write"):
        opened(visible_folder / "comagent.db")
    visible_folder.chmod(0o755)


def test_no_room_is_an_error_and_not_a_verdict_and_work_goes_on_when_there_is_room(tmp_path: Path) -> None:
    store = opened(tmp_path / "comagent.db")
    assert store.commit("s", 1, [JobCommit("j", EPOCH, admit=job("j"))]) == [Committed(1)]
    large = JobCommit("j", EPOCH, outcomes=outcomes(100, b"x" * 50_000))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StoreError, match=r"What was acknowledged is safe"):
            store.commit("s", 2, [large])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert store.seq("j") == 1
    assert store.progress("j") == []
    assert store.commit("s", 2, [large]) == [Committed(101)]
    store.close()


def test_a_file_that_stays_locked_is_an_error_and_not_a_verdict(tmp_path: Path) -> None:
    path = tmp_path / "comagent.db"
    store = opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked by another process"):
        store.commit("s", 1, [JobCommit("j", EPOCH, admit=job("j"))])
    with pytest.raises(StoreError, match="locked by another process"):
        store.take_over(["s"], to="s", epoch=EPOCH)
    assert store.seq("j") is None
    other.execute("ROLLBACK")
    assert store.take_over(["s"], to="s", epoch=EPOCH) == []
    assert store.commit("s", 1, [JobCommit("j", (0, 1), admit=job("j"))]) == [Stale()]
    assert store.commit("s", 1, [JobCommit("j", EPOCH, admit=job("j"))]) == [Committed(1)]
    other.close()
    store.close()


def test_many_processes_may_open_a_new_store_at_once(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/comagent.db"
    code = f"import sys; from comagent.store import store_at; sys.stdin.readline(); store_at({url!r}).open()"
    openers = [subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE) for _ in range(4)]
    for opener in openers:
        assert opener.stdin is not None
        opener.stdin.write(b"\n")
        opener.stdin.flush()
    assert [opener.wait(60) for opener in openers] == [0] * 4
    for opener in openers:
        opener.communicate()


def test_a_commit_costs_little_more_than_bare_inserts(tmp_path: Path) -> None:
    store = opened(tmp_path / "comagent.db")
    bare = sqlite3.connect(tmp_path / "bare.db", isolation_level=None)
    bare.execute("PRAGMA journal_mode = WAL")
    bare.execute("PRAGMA synchronous = FULL")
    bare.execute(
        "CREATE TABLE progress (job TEXT, task TEXT, seq INT, dispatch TEXT, attempt INT, status TEXT, result BLOB,"
        " started INT, ended INT, PRIMARY KEY (job, task)) WITHOUT ROWID"
    )
    rows = outcomes(10_000, b'{"value":12345}')
    ours, theirs = [], []
    for n in range(5):
        job_id = f"job-{n}"
        store.commit("s", 2 * n + 1, [JobCommit(job_id, EPOCH, admit=job(job_id))])
        started = time.perf_counter()
        store.commit("s", 2 * n + 2, [JobCommit(job_id, EPOCH, outcomes=rows)])
        ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        bare.execute("BEGIN IMMEDIATE")
        bare.executemany(
            "INSERT INTO progress VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            [(job_id, *row[:1], seq, *row[1:5], *row[7:]) for seq, row in enumerate(rows)],
        )
        bare.execute("COMMIT")
        theirs.append(time.perf_counter() - started)
    bare.close()
    store.close()
    assert min(ours) < 3 * min(theirs)


def test_a_commit_beside_a_busy_thread_waits_for_its_turn_a_few_times_not_once_a_row(tmp_path: Path) -> None:
    store = opened(tmp_path / "comagent.db")
    one, many = [JobCommit(job_id, EPOCH, admit=job(job_id)) for job_id in ("one", "many")]
    store.commit("s", 1, [one, many])
    with a_busy_thread():
        started = time.perf_counter()
        store.commit("s", 2, [JobCommit("one", EPOCH, outcomes=outcomes(1))])
        alone = time.perf_counter() - started
        started = time.perf_counter()
        store.commit("s", 3, [JobCommit("many", EPOCH, outcomes=outcomes(2_000))])
        together = time.perf_counter() - started
    store.close()
    assert together < 50 * alone
