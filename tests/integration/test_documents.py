"""Documents in a folder."""

import hashlib
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from comagent.errors import StoreError
from comagent.store import Documents


@pytest.fixture
def documents(tmp_path: Path) -> Documents:
    return Documents(tmp_path / "documents")


def files(documents: Documents, digest: str) -> list[Path]:
    return list(documents.path(digest).parent.iterdir())


def test_a_document_reads_back_by_the_hash_of_its_content(documents: Documents) -> None:
    data = os.urandom(200_000)
    digest, size = documents.put(data, "arrow")
    assert (digest, size) == (hashlib.sha256(data).hexdigest(), 200_000)
    assert documents.get(digest) == data
    assert documents.view(digest) == data
    assert documents.size(digest) == size


def test_an_empty_document_is_one_too(documents: Documents) -> None:
    digest, _ = documents.put(b"", "json")
    assert (documents.get(digest), bytes(documents.view(digest)), documents.size(digest)) == (b"", b"", 0)


def test_a_view_of_something_wider_than_bytes_counts_bytes(documents: Documents) -> None:
    numbers = memoryview(bytes(range(64))).cast("I")
    digest, size = documents.put(numbers, "arrow")
    assert size == 64
    assert documents.get(digest) == bytes(range(64))


def test_putting_a_document_again_keeps_one_file_and_renews_its_age(documents: Documents) -> None:
    digest, _ = documents.put(b"same", "json")
    path = documents.path(digest)
    os.utime(path, (1, 1))
    assert documents.put(memoryview(b"same"), "json") == (digest, 4)
    assert files(documents, digest) == [path]
    assert path.stat().st_mtime > 1


def test_a_damaged_document_is_noticed_and_mended_by_putting_it_again(documents: Documents) -> None:
    digest, _ = documents.put(b"precious", "json")
    path = documents.path(digest)
    path.write_bytes(b"prec")
    with pytest.raises(StoreError, match=f"{digest} is damaged"):
        documents.get(digest)
    documents.put(b"precious", "json")
    assert documents.get(digest) == b"precious"


def test_a_missing_document_is_named(documents: Documents) -> None:
    digest = "0" * 64
    for read in (documents.get, documents.view, documents.size):
        with pytest.raises(StoreError, match=f"{digest} is missing"):
            read(digest)


@pytest.mark.parametrize("digest", ["", "abc", "../../../etc/passwd", "A" * 64, "0" * 64 + "\n"])
def test_what_is_no_hash_leads_nowhere(documents: Documents, digest: str) -> None:
    with pytest.raises(StoreError, match="no hash"):
        documents.get(digest)


def test_no_room_is_explained_and_leaves_nothing_behind(documents: Documents) -> None:
    data = bytes(2_000_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StoreError, match=r"2000000 bytes cannot be written .*Free some space"):
            documents.put(data, "json")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    digest = hashlib.sha256(data).hexdigest()
    assert files(documents, digest) == []
    assert documents.put(data, "json") == (digest, len(data))


def test_a_kill_while_writing_leaves_only_whole_documents(documents: Documents, tmp_path: Path) -> None:
    code = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from comagent.store import Documents\n"
        "documents = Documents(Path(sys.argv[1]))\n"
        "while True:\n"
        "    print(documents.put(os.urandom(3_000_000), 'json')[0], flush=True)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "documents")]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    written = [writer.stdout.readline().strip() for _ in range(5)]
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    whole = [path.name for path in (tmp_path / "documents").rglob("*") if path.is_file() and path.name[0] != "."]
    assert set(written) <= set(whole)
    for digest in whole:
        assert len(documents.get(digest)) == 3_000_000
