"""The real program, started as its user starts it, in a home of its own."""

import contextlib
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

PROGRAM = (sys.executable, "-m", "comagent")
ROOT = Path(__file__).parents[2]
GRACE_S = 5.0
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Result(NamedTuple):
    """What a command left: its exit code and what it wrote."""

    code: int
    out: str
    err: str


class Terminal:
    """A command that runs in a terminal of its own."""

    def __init__(self, pid: int, descriptor: int):
        self.pid = pid
        self._descriptor = descriptor
        self.screen = ""

    def until(self, pattern: str, *, within_s: float = 90.0) -> None:
        """Reads on until a line matches, colours apart. Fails if the command ends before, or it takes too long."""
        os.set_blocking(self._descriptor, False)
        deadline = time.monotonic() + within_s
        while not re.search(pattern, _COLOUR.sub("", self.screen)):
            assert time.monotonic() < deadline, f"not shown in time: {pattern}\n{self.screen}"
            assert self._read(), f"ended before it showed {pattern}\n{self.screen}"
            time.sleep(0.02)

    def press(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    def hang_up(self) -> int:
        """Closes the terminal; the command's exit code."""
        os.close(self._descriptor)
        return self._code()

    def ended(self, *, within_s: float = 60.0) -> int:
        """The exit code, when the command has ended by itself."""
        os.set_blocking(self._descriptor, False)
        deadline = time.monotonic() + within_s
        while self._read():
            assert time.monotonic() < deadline, f"not ended in time\n{self.screen}"
            time.sleep(0.02)
        os.close(self._descriptor)
        return self._code()

    def _read(self) -> bool:
        try:
            data = os.read(self._descriptor, 1 << 16)
        except BlockingIOError:
            return True
        except OSError:
            # How Linux says that nobody has the other side open.
            return False
        self.screen += data.decode(errors="replace")
        return bool(data)

    def _code(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class Program:
    """The `comagent` command with a folder to work in and a home in it."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.home = folder / "home"
        self.environment = {
            **os.environ,
            "COMAGENT_HOME": str(self.home),
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm-256color",
            "COLUMNS": "100",
            "LINES": "40",
        }

    def __call__(self, *arguments: str, within_s: float = 100.0, **environment: str) -> Result:
        """Runs a command to its end, its output in pipes."""
        done = subprocess.run(
            [*PROGRAM, *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            capture_output=True,
            text=True,
            timeout=within_s,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    @contextlib.contextmanager
    def terminal(self, *arguments: str) -> Iterator[Terminal]:
        """Starts a command in a terminal, and ends it with the block whatever happens in it."""
        pid, descriptor = pty.fork()
        if pid == 0:
            os.chdir(self.folder)
            # As in a terminal: whatever started the tests may have told them to ignore signals.
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            os.execve(PROGRAM[0], [*PROGRAM, *arguments], self.environment)
        try:
            yield Terminal(pid, descriptor)
        finally:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                if os.waitpid(pid, os.WNOHANG) == (0, 0):
                    os.kill(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)

    def write(self, name: str, text: str) -> str:
        (self.folder / name).write_text(text, encoding="utf-8")
        return name

    def processes(self) -> list[psutil.Process]:
        """All living processes that know this home, as everything that a run starts does."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                mine = process.environ().get("COMAGENT_HOME") == str(self.home)
                if mine and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found


@pytest.fixture
def comagent(tmp_path: Path) -> Iterator[Program]:
    """The program. A test fails if any process of its runs outlives it."""
    program = Program(tmp_path)
    yield program
    deadline = time.monotonic() + GRACE_S
    while (left := program.processes()) and time.monotonic() < deadline:
        time.sleep(0.05)
    names = [process.name() for process in left]
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    assert names == [], "these processes were left behind"


@pytest.fixture
def until() -> Callable[..., None]:
    """Waits for a condition, and fails if it does not come true in time."""

    def wait(condition: Callable[[], object], *, within_s: float = 30.0) -> None:
        deadline = time.monotonic() + within_s
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            time.sleep(0.02)

    return wait
