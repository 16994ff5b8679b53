"""What is known of embedded runs beside their leases and after them: where their logs are, which processes they had."""

import contextlib
import json
import os
from pathlib import Path
from typing import NamedTuple

from comagent.coordination.base import OwnedProcess
from comagent.coordination.processes import boot_id, is_alive


class Run(NamedTuple):
    """One embedded run, under way or over."""

    shard: str
    session: str
    """Folder of its Ray; the logs are below it."""
    started_ms: int
    boot_id: str
    processes: tuple[OwnedProcess, ...]
    """The first is the one that the run ends with."""
    ended_ms: int | None = None
    """When it ended in good order, and all its processes with it."""

    @property
    def is_alive(self) -> bool:
        """Whether it is under way, as far as can be seen from here."""
        return self.ended_ms is None and self.boot_id == boot_id() and is_alive(self.processes[0])

    @property
    def left(self) -> list[OwnedProcess]:
        """Those of its processes that live, of a run that did not end in good order."""
        if self.ended_ms is not None or self.boot_id != boot_id():
            return []
        return [each for each in self.processes if is_alive(each)]


class Runs:
    """A folder with one small file for each run. Losing one loses sight of logs, nothing else."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def write(self, run: Run) -> None:
        """Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._path(run.shard)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(run._asdict()), encoding="utf-8")
        temporary.replace(path)

    def read(self, shard: str) -> Run | None:
        """None if there is no such run, or its file cannot be read."""
        try:
            found = json.loads(self._path(shard).read_text(encoding="utf-8"))
            processes = tuple(OwnedProcess(*process) for process in found.pop("processes"))
            return Run(**found, processes=processes) if processes else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None

    def all(self) -> list[Run]:
        """Those that can be read, the earliest first."""
        found = [self.read(path.stem) for path in self._folder.glob("*.json")]
        return sorted((run for run in found if run is not None), key=lambda run: run.started_ms)

    def remove(self, shard: str) -> None:
        with contextlib.suppress(OSError):
            self._path(shard).unlink()

    def _path(self, shard: str) -> Path:
        return self._folder / f"{shard}.json"
