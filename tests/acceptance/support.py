"""What tests need to run a program, to kill parts of it or all of it, and to look at what it leaves behind."""

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from comagent.store import Store, store_at
from tests.waiting import until

DRIVER = (sys.executable, str(Path(__file__).with_name("driver.py")))
COMAGENT = (sys.executable, "-m", "comagent")

SCHEDULER = "ray::Scheduler"
SUPERVISOR = "ray::Supervisor"
AGENT = "ray::SubTaskAgent"


class Tree:
    """A program under test, and every process that was ever seen below it."""

    def __init__(self, *command: str, home: Path):
        self._errors = (home.parent / f"stderr.{time.monotonic_ns()}").open("w+")
        self._popen = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, "COMAGENT_HOME": str(home)},
        )
        self.process = psutil.Process(self._popen.pid)
        self.seen = {self.process}
        self.lines: list[str] = []
        """Everything it wrote to standard output."""
        self._news: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self.lines.append(line)
            self._news.put(line)
        self._news.put(None)

    def order(self, **what: Any) -> None:
        """Writes one JSON document to its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.write(json.dumps(what) + "\n")
        self._popen.stdin.flush()

    def close(self) -> None:
        """Ends its standard input."""
        assert self._popen.stdin is not None
        self._popen.stdin.close()

    def told(self, key: str, *, within_s: float = 60.0) -> Any:
        """What its next line of JSON says about `key`. Fails if that is another line, or does not come in time."""
        try:
            line = self._news.get(timeout=within_s)
        except queue.Empty:
            raise AssertionError(f'the program did not tell "{key}" within {within_s:g} s') from None
        if line is None:
            raise AssertionError(f'the program ended before it told "{key}":\n{self.errors()}')
        assert line.startswith(f'{{"{key}"'), f'not "{key}", but: {line}'
        return json.loads(line)[key]

    def errors(self) -> str:
        """The end of what it wrote to standard error."""
        self._errors.seek(0)
        return self._errors.read()[-4000:]

    def below(self) -> list[psutil.Process]:
        """All processes below it now. They are remembered."""
        try:
            processes = self.process.children(recursive=True)
        except psutil.NoSuchProcess:
            return []
        self.seen.update(processes)
        return processes

    def actors(self, title: str) -> list[psutil.Process]:
        """The living actors with this title, oldest first."""
        found = [process for process in self.below() if is_running(process) and name(process).startswith(title)]
        return sorted(found, key=lambda process: (process.create_time(), process.pid))

    def kill_tree(self) -> None:
        """SIGKILL to everything at once: nobody is left who could tidy up."""
        processes = [self.process, *self.below()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
        self._popen.wait(30)

    def kill_alone(self) -> None:
        """SIGKILL to the program, and to nothing that it has started."""
        self.below()
        self.process.kill()
        self._popen.wait(30)

    def ended(self, *, within_s: float = 60.0) -> int:
        """Its exit code, when it has ended."""
        deadline = time.monotonic() + within_s
        while self._popen.poll() is None:
            assert time.monotonic() < deadline, f"the program goes on after {within_s:g} s:\n{self.errors()}"
            self.below()
            time.sleep(0.05)
        self._reader.join(5)
        return self._popen.returncode

    def left(self) -> list[psutil.Process]:
        """Those of the processes seen that still run."""
        return [process for process in self.seen if is_running(process)]

    def tidy(self) -> None:
        """Ends what is left, and nothing else."""
        self.below()
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._popen.wait(30)
        self._reader.join(30)
        for stream in (self._popen.stdin, self._popen.stdout, self._errors):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


@contextlib.contextmanager
def running(command: Sequence[str], *, home: Path) -> Iterator[Tree]:
    """A program that ends with the block, with all its processes, whatever happens."""
    tree = Tree(*command, home=home)
    try:
        yield tree
    finally:
        tree.tidy()


def is_running(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def name(process: psutil.Process) -> str:
    """The title of an actor, the command of any other process."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


@contextlib.contextmanager
def opened(home: Path) -> Iterator[Store]:
    """The store of a home, to look into."""
    store = store_at(f"sqlite:///{home / 'store.db'}")
    store.open()
    try:
        yield store
    finally:
        store.close()


def committed(store: Store, job_id: str, *, at_least: int) -> set[str]:
    """The tasks of a job that have an outcome, as soon as they are so many."""
    return until(lambda: tasks if len(tasks := done(store, job_id)) >= at_least else set())


def done(store: Store, job_id: str) -> set[str]:
    """The tasks of a job that have an outcome."""
    return {row.outcome.task for row in store.progress(job_id)}


class Call(NamedTuple):
    """One line of a ledger: a tool was called."""

    task: str
    attempt: int
    pid: int


def calls(ledger: Path) -> list[Call]:
    """All calls that were ever begun, in order."""
    lines = ledger.read_text().splitlines() if ledger.exists() else []
    return [Call(task, int(attempt), int(pid)) for task, attempt, pid in map(str.split, lines)]
