"""The tool that runs programs: those that the operator allows, with a list of arguments, and never through a shell.

`COMAGENT_SHELL_ALLOW` is a list of programs, separated by commas: names that are looked up in `PATH`, or absolute
paths. It takes the place of the programs that are allowed by default, which read no files, write none, start nothing,
and change nothing: a process may run on data from anywhere, and these do no harm whatever their arguments are.
What else is allowed is a decision: `cat` reads every file that the agent may read, `find` and `git` run other programs.
`COMAGENT_SHELL_ENV` is a list of variables that processes may set besides those of the language and the time zone.
"""

import asyncio
import os
import re
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated, cast

from pydantic import Field
from typing_extensions import TypedDict

from comagent.errors import ArgumentError, ComAgentError
from comagent.tools import leash
from comagent.tools.base import tool
from comagent.tools.sizes import MIB
from comagent.tools.workspace import folder, home, parts

__all__ = ["Finished", "ProgramFailedError", "ProgramRefusedError", "run"]

PROGRAMS, VARIABLES = "COMAGENT_SHELL_ALLOW", "COMAGENT_SHELL_ENV"
DEFAULT_PROGRAMS = (
    *("arch", "basename", "df", "dirname", "echo", "expr", "false", "free", "id", "nproc", "printf", "seq"),
    *("sleep", "tr", "true", "uname", "uptime", "whoami"),
)
DEFAULT_VARIABLES = frozenset({"COLUMNS", "LANG", "LANGUAGE", "LINES", "NO_COLOR", "TERM", "TZ"})

_LOCALE = re.compile("LC_[A-Z]+")

_TOOL = "shell.run"
_LAST_WORDS_S = 1.0
"""How long to listen after the end: only what has left the process group can hold the pipes open then."""
_SHOWN = 500


class Finished(TypedDict):
    code: int
    """The exit code; the negative number of the signal that ended the program."""
    stdout: str
    stderr: str
    truncated: bool
    """Whether the program wrote more than `max_output` bytes to one of them: the rest is not there."""
    duration_s: float


class ProgramRefusedError(ComAgentError):
    """A program was to run that the operator does not allow."""

    def __init__(self, program: str, problem: str, remedy: str) -> None:
        super().__init__(program, problem, remedy)
        self.program = program
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        return f'"{self.program}" {self.problem}. {self.remedy}'


class ProgramFailedError(ComAgentError):
    """A program could not be started, or ended with a code that was not expected."""

    def __init__(self, program: str, problem: str) -> None:
        super().__init__(program, problem)
        self.program = program
        self.problem = problem

    def __str__(self) -> str:
        return f'"{self.program}" {self.problem}'


@tool(name=_TOOL, effects="some")
async def run(
    command: Annotated[list[str], Field(min_length=1)],
    input: str | None = None,
    *,
    timeout_s: Annotated[float, Field(gt=0)] = 60.0,
    max_output: Annotated[int, Field(ge=0, le=64 * MIB)] = 65_536,
    cwd: str = "",
    env: dict[str, str] = {},  # noqa: B006  # never changed
    expect: list[int] | None = None,
) -> Finished:
    """Run a program that the operator allows, and give what it writes.

    The operator's list is `COMAGENT_SHELL_ALLOW`, names or absolute paths with commas between them. Without it, these
    may run: arch, basename, df, dirname, echo, expr, false, free, id, nproc, printf, seq, sleep, tr, true, uname,
    uptime and whoami.

    `command` is the program and its arguments, which reach it as they are: there is no shell, so nothing in them is
    expanded, redirected or run. `cwd` is a folder of the workspace. The program gets no environment but `PATH`, the
    workspace as `HOME`, and `env`. Output beyond `max_output` bytes is dropped while the program goes on.

    `ProgramRefusedError` if the program or a variable is not allowed; `ProgramFailedError` if it cannot be started, or
    ends with a code that is not among those in `expect`; any code will do if that is left out. `TimeoutError` after
    `timeout_s`. Whatever the program has started ends with it.
    """
    path = _allowed(command[0])
    if any("\0" in text for text in (*command, *env, *env.values())):
        raise ArgumentError(_TOOL, "an argument or a variable contains a zero byte", "Programs cannot take these.")
    begun = time.monotonic()
    output = _Output(max_output)
    with ExitStack() as held:
        ours, theirs = socket.socketpair()
        held.callback(ours.close)
        with theirs:
            transport = await _start(path, command, theirs, output=output, cwd=cwd, env=_environment(env))
        try:
            _give(transport, input)
            in_time, _ = await asyncio.wait({output.exited}, timeout=timeout_s)
        finally:
            await _end(transport, output)
        if not in_time:
            raise TimeoutError(f'"{command[0]}" was ended after {timeout_s:g} s{output.last_words()}')
        problem, code = _outcome(ours, transport)
    if problem:
        raise ProgramFailedError(command[0], f"cannot be started: {problem}")
    if expect is not None and code not in expect:
        raise ProgramFailedError(command[0], f"ended with code {code}{output.last_words()}")
    return {
        "code": code,
        "stdout": output.text(1),
        "stderr": output.text(2),
        "truncated": output.truncated,
        "duration_s": round(time.monotonic() - begun, 3),
    }


class _Output(asyncio.SubprocessProtocol):
    """The first bytes of what a program writes to its standard output (1) and its standard error (2)."""

    def __init__(self, limit: int) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.truncated = False
        self._limit = limit
        self._heads = {1: bytearray(), 2: bytearray()}

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        head = self._heads[fd]
        room = self._limit - len(head)
        head += data[:room]
        self.truncated = self.truncated or len(data) > room

    def process_exited(self) -> None:
        if not self.exited.done():
            self.exited.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)

    def text(self, fd: int) -> str:
        return self._heads[fd].decode("utf-8", "replace")

    def last_words(self) -> str:
        """What it said, as the end of a sentence."""
        said = " ".join((self.text(2).strip() or self.text(1)).split())[-_SHOWN:]
        return f", after it had written: {said}" if said else ""


async def _start(
    path: str, command: list[str], leash_end: socket.socket, *, output: _Output, cwd: str, env: dict[str, str]
) -> asyncio.SubprocessTransport:
    with folder(parts(cwd)) as descriptor:
        held = (leash_end.fileno(), descriptor)
        try:
            transport, _ = await asyncio.get_running_loop().subprocess_exec(
                lambda: output,
                *(sys.executable, "-I", "-S", leash.__file__, *map(str, held), path, *command),
                pass_fds=held,
                start_new_session=True,
                env=env,
            )
        except OSError as error:
            raise ProgramFailedError(command[0], f"cannot be started: {error.strerror}") from error
    return transport


def _give(transport: asyncio.SubprocessTransport, text: str | None) -> None:
    """Writes to the program's standard input as it reads, then closes it."""
    pipe = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
    if text:
        pipe.write(text.encode())
    pipe.close()


async def _end(transport: asyncio.SubprocessTransport, output: _Output) -> None:
    """Ends the program with all that it has started, if it has not ended, and takes in what it has written."""
    if not output.exited.done():
        with suppress(ProcessLookupError):
            os.killpg(transport.get_pid(), signal.SIGKILL)
    try:
        await asyncio.wait({output.exited})
        await asyncio.wait({output.closed}, timeout=_LAST_WORDS_S)
    finally:
        transport.close()


def _outcome(leash_end: socket.socket, transport: asyncio.SubprocessTransport) -> tuple[str, int]:
    """Why the program could not be started, if so, and its exit code."""
    leash_end.setblocking(False)
    with suppress(BlockingIOError):
        *problem, code = leash_end.recv(4_096).decode().split("!")[-2:]
        if code:
            return "".join(problem), int(code)
    # The program has killed even what was to report its end.
    return "", cast(int, transport.get_returncode())


def _allowed(name: str) -> str:
    """The absolute path of a program that may run."""
    entries = os.environ.get(PROGRAMS)
    names = DEFAULT_PROGRAMS if entries is None else tuple(_listed(entries))
    if name not in names:
        raise ProgramRefusedError(
            name,
            f"is not among the programs that may run: {', '.join(sorted(names)) or 'none'}",
            f"If it is to run, add it to {PROGRAMS} where the agents run.",
        )
    path = name if Path(name).is_absolute() else shutil.which(name, path=_path())
    if path is None:
        raise ProgramRefusedError(name, "may run, but is not installed", f"Nothing of that name is in {_path()}.")
    return path


def _listed(entries: str) -> Iterator[str]:
    return filter(None, map(str.strip, entries.split(",")))


def _path() -> str:
    """`PATH` without what depends on the working folder, where anybody may have put a program."""
    return os.pathsep.join(entry for entry in os.get_exec_path() if Path(entry).is_absolute())


def _environment(given: dict[str, str]) -> dict[str, str]:
    names = DEFAULT_VARIABLES | set(_listed(os.environ.get(VARIABLES, "")))
    refused = [name for name in given if name not in names and not _LOCALE.fullmatch(name)]
    if refused:
        # Many a variable makes a program run another one: LD_PRELOAD, PATH, GIT_SSH_COMMAND, PAGER.
        raise ProgramRefusedError(
            refused[0],
            "is not among the variables that processes may set",
            f"If they are to set it, add it to {VARIABLES} where the agents run.",
        )
    return {"PATH": _path(), "HOME": str(home()), "LANG": "C.UTF-8", **given}
