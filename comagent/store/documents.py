"""Values too large for a row: files named by the hash of what is in them."""

import fcntl
import hashlib
import mmap
import os
import re
import tempfile
from pathlib import Path

from comagent.errors import StoreError

_HASH = re.compile(r"[0-9a-f]{64}")


class Documents:
    """Documents in a folder. Any number of threads and processes may share it; what is there never changes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes | memoryview, content_type: str) -> tuple[str, int]:
        """Store a document: its hash and its size in bytes. Durable on return; putting the same again is fine.

        Files are found by content alone: the type belongs to the row that a commit adds for the document.
        """
        digest = hashlib.sha256(data).hexdigest()
        size = memoryview(data).nbytes
        path = self.path(digest)
        try:
            if path.exists() and path.stat().st_size == size:
                # A collector goes by age: this document is wanted anew.
                os.utime(path)
            else:
                self._write(path, data)
            # Also for a file that was there: whoever put it may not have come to this line.
            _flush_folder(path.parent)
        except OSError as error:
            problem = f"a document of {size} bytes cannot be written to {path.parent}: {error.strerror}"
            raise StoreError(problem, "Free some space there, and let this user write the folder.") from error
        return digest, size

    def get(self, digest: str) -> bytes:
        """A document, read and checked. Raises `StoreError` if it is missing or damaged."""
        path = self.path(digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise _unreadable(path, error) from error
        if hashlib.sha256(data).hexdigest() != digest:
            raise StoreError(f"document {path} is damaged", "Restore it from a backup, or run its task again.")
        return data

    def view(self, digest: str) -> memoryview:
        """A document mapped into memory: nothing is read until it is used, and nothing is checked."""
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                if os.fstat(file.fileno()).st_size == 0:
                    return memoryview(b"")
                return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except OSError as error:
            raise _unreadable(path, error) from error

    def size(self, digest: str) -> int:
        """In bytes. Raises `StoreError` if the document is missing."""
        path = self.path(digest)
        try:
            return path.stat().st_size
        except OSError as error:
            raise _unreadable(path, error) from error

    def path(self, digest: str) -> Path:
        """Where the document is, or would be."""
        if not _HASH.fullmatch(digest):
            raise StoreError(f"{digest!r} is no hash of a document", "A hash is 64 hexadecimal digits in lower case.")
        return self._folder / digest[:2] / digest

    def _write(self, path: Path, data: bytes | memoryview) -> None:
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            _flush_folder(self._folder)
            _flush_folder(self._folder.parent)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                _flush_file(file.fileno())
            # Only now, so that a file under its hash is always whole.
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def _flush_file(descriptor: int) -> None:
    # fsync alone leaves the data in the drive's cache on macOS.
    to_the_drive = getattr(fcntl, "F_FULLFSYNC", None)
    if to_the_drive is None:
        os.fsync(descriptor)
    else:
        fcntl.fcntl(descriptor, to_the_drive)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> StoreError:
    if isinstance(error, FileNotFoundError):
        return StoreError(f"document {path} is missing", "Restore it from a backup, or run its task again.")
    return StoreError(f"document {path} cannot be read: {error.strerror}", "Let this user read the file.")
