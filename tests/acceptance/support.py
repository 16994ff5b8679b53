"""What acceptance tests need to run a program of its own process, look at what it left behind, and kill parts of it."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import psutil

from comagent.store import Store, store_at
from comagent.store.base import ProgressRow

Found = TypeVar("Found")

DRIVER = Path(__file__).with_name("driver.py")

SCHEDULER = "ray::Scheduler"
SUPERVISOR = "ray::Supervisor"
AGENT = "ray::SubTaskAgent"


def until(look: Callable[[], Found | None], *, what: str, within_s: float = 60.0) -> Found:
    """The first answer of `look` that is true. Fails if there is none in time."""
    deadline = time.monotonic() + within_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, f"not within {within_s:g} s: {what}"
        time.sleep(0.005)


class Entry(NamedTuple):
    """One line of a ledger: a tool was called."""

    task: str
    attempt: int
    pid: int


class Run:
    """A program under test, its home, its ledger, and every process that was ever seen below it."""

    def __init__(self, home: Path, *arguments: str, program: Sequence[str] = (str(DRIVER),)):
        self.home = home
        self._lines: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.noise: list[str] = []
        """Lines on standard output that the program did not write."""
        self._errors = (home.parent / f"{home.name}.{time.monotonic_ns()}.stderr").open("w+")
        environment = {**os.environ, "COMAGENT_HOME": str(home)}
        self._popen = subprocess.Popen(
            [sys.executable, *program, *arguments],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment,
        )
        self.process = psutil.Process(self._popen.pid)
        self.seen: set[psutil.Process] = {self.process}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            try:
                self._lines.put(json.loads(line))
            except json.JSONDecodeError:
                self.noise.append(line)
        self._lines.put(None)

    def told(self, key: str, *, within_s: float = 100.0) -> Any:
        """The value of the next line that has this key. Fails if the program ends before, or is silent for too long."""
        deadline = time.monotonic() + within_s
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f'the program did not tell "{key}" within {within_s:g} s') from None
            if line is None:
                self._errors.seek(0)
                raise AssertionError(f'the program ended before it told "{key}":\n{self._errors.read()[-4000:]}')
            if key in line:
                return line[key]

    def below(self) -> list[psutil.Process]:
        """All processes below the program now. They are remembered."""
        try:
            processes = self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            processes = []
        self.seen.update(processes)
        return processes

    def actors(self, title: str) -> list[psutil.Process]:
        """The living actors with this title, oldest first."""
        found = []
        for process in self.below():
            with contextlib.suppress(psutil.Error):
                if process.status() != psutil.STATUS_ZOMBIE and "".join(process.cmdline()).startswith(title):
                    found.append(process)
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def actor(self, title: str) -> psutil.Process:
        """The youngest actor with this title, when there is one."""
        return until(lambda: self.actors(title)[-1:], what=f"an actor {title}")[0]

    def kill_tree(self) -> None:
        """SIGKILL to everything at once: nobody is left who could tidy up."""
        processes = [self.process, *self.below()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self._popen.wait(30)

    def kill_alone(self) -> None:
        """SIGKILL to the program only."""
        self.below()
        self.process.kill()
        self._popen.wait(30)

    def ended(self, *, within_s: float = 60.0) -> int:
        """The program's exit code, when it has ended."""
        code = self._popen.wait(within_s)
        self._reader.join(5)
        return code

    def left(self) -> list[psutil.Process]:
        """Those of the processes seen that still live."""
        return [process for process in self.seen if is_running(process)]

    def tidy(self) -> None:
        """Ends what is left of this program, and nothing else."""
        self.below()
        for process in self.left():
            with contextlib.suppress(psutil.Error):
                process.kill()
        self._popen.wait(30)
        self._reader.join(30)
        if self._popen.stdout is not None:
            self._popen.stdout.close()
        self._errors.close()


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@contextlib.contextmanager
def running(home: Path, *arguments: str, program: Sequence[str] = (str(DRIVER),)) -> Iterator[Run]:
    """A program that is ended with the block, whatever happens in it."""
    run = Run(home, *arguments, program=program)
    try:
        yield run
    finally:
        run.tidy()


@contextlib.contextmanager
def opened(home: Path) -> Iterator[Store]:
    """The store of a home, to look into."""
    store = store_at(f"sqlite:///{home / 'store.db'}")
    store.open()
    try:
        yield store
    finally:
        store.close()


def committed(store: Store, job_id: str, at_least: int) -> list[ProgressRow]:
    """What is committed of a job, as soon as it is so much."""
    return until(
        lambda: rows if len(rows := store.progress(job_id)) >= at_least else None,
        what=f"{at_least} committed tasks",
    )


def ledger(path: Path) -> list[Entry]:
    """All calls of tools that were ever begun, in order."""
    if not path.exists():
        return []
    return [Entry(task, int(attempt), int(pid)) for task, attempt, pid in map(str.split, path.read_text().splitlines())]
