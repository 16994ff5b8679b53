"""Tools in a process of their own: they can be stopped at any time, and what they break is theirs.

The parent writes the call to the child's standard input and keeps that open: when it closes, because the parent died,
the child ends with everything that it started. The answer comes through a pipe of its own, so that whatever the tool
prints cannot get in its way. Both carry one frame: eight bytes of length, then so many of content.
"""

import asyncio
import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, cast

import psutil

from comagent.calls import Ended
from comagent.failure import TRACEBACK_CHARS, failure, told
from comagent.tools.base import ToolContext
from comagent.tools.loading import load
from comagent.tools.source import Code
from comagent.values import encode

LAST_WORDS_S = 1.0
"""How long to listen after the tool's process has ended: only its own children can hold its pipes open then."""

_VALUE, _ERROR = b"v", b"e"
# Not `-m`: that would look in the working folder first, where a file may be called like a module of Python's.
_START = "import sys; sys.path.append(sys.argv[1]); from comagent.isolation import main; main(int(sys.argv[2]))"


class ProcessCall:
    """A call in a process of its own."""

    def __init__(self, code: Code, arguments: dict[str, Any], context: ToolContext):
        loop = asyncio.get_running_loop()
        call = encode({"code": list(code), "arguments": arguments, "context": asdict(context)}, tool=code.qualname)
        self.ended: asyncio.Future[Ended] = loop.create_future()
        self._task = loop.create_task(self._run(call))

    @property
    def goes_on(self) -> bool:
        return not self._task.done()

    async def stop(self) -> None:
        """Ends the process and all that it has started."""
        self._task.cancel()
        await asyncio.wait({self._task})

    def where(self) -> str:
        """Nothing is known of another process."""
        return ""

    async def _run(self, call: bytes) -> None:
        try:
            ended = await _in_process(call)
        except asyncio.CancelledError:
            ended = Ended(None, told("Cancelled", "the tool's process was ended"))
        except Exception as error:  # noqa: BLE001  # it is the attempt's error
            ended = Ended(None, failure(error))
        if not self.ended.done():
            self.ended.set_result(ended)


class _Child(asyncio.SubprocessProtocol):
    """What is heard of the process beside its answer. `Process.wait` would wait for its pipes, too."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.exited: asyncio.Future[None] = loop.create_future()
        self.silent: asyncio.Future[None] = loop.create_future()
        self.words = bytearray()
        """The end of what it wrote to its standard error."""

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        self.words += data
        del self.words[:-TRACEBACK_CHARS]

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 2 and not self.silent.done():
            self.silent.set_result(None)

    def process_exited(self) -> None:
        self.exited.set_result(None)


async def _in_process(call: bytes) -> Ended:
    answer, reply = os.pipe()
    try:
        process, child = await asyncio.get_running_loop().subprocess_exec(
            *(_Child, sys.executable, "-P", "-c", _START, str(Path(__file__).parents[1]), str(reply)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            pass_fds=(reply,),
            start_new_session=True,
        )
    except BaseException:
        os.close(answer)
        raise
    finally:
        os.close(reply)
    answering: asyncio.Future[Any] = asyncio.ensure_future(_read_frame(answer))
    exited: asyncio.Future[Any] = child.exited
    try:
        # A cast: the transports of uvloop, which Ray uses, derive from nothing.
        cast(asyncio.WriteTransport, process.get_pipe_transport(0)).write(len(call).to_bytes(8, "big") + call)
        await asyncio.wait({answering, exited}, return_when=asyncio.FIRST_COMPLETED)
        if not (answering.done() and answering.result()):
            await exited
            await asyncio.wait([answering, child.silent], timeout=LAST_WORDS_S)
        if answering.done() and (frame := answering.result()):
            return Ended(frame[1:], None) if frame[:1] == _VALUE else Ended(None, frame[1:])
        code = process.get_returncode() or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = child.words.decode("utf-8", "replace")
        return Ended(None, told("ProcessDied", f"the tool's process {how} before it returned a result", trace=said))
    except asyncio.CancelledError:
        # What has left the process group is found only as long as its parents live.
        _kill(_descendants(process.get_pid()))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.get_pid(), signal.SIGKILL)
        answering.cancel()
        await asyncio.wait({answering, exited})
        process.close()


async def _read_frame(pipe: int) -> bytes:
    """One frame; empty if the pipe ends before."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb"))
    try:
        return await reader.readexactly(int.from_bytes(await reader.readexactly(8), "big"))
    except asyncio.IncompleteReadError:
        return b""
    finally:
        transport.close()


def _descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _kill(processes: Iterable[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.kill()


def main(reply: int) -> None:
    """The child: reads one call, answers it, ends."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    os.set_inheritable(reply, False)
    faulthandler.enable()
    asked = _take_standard_input()
    call = json.loads(asked.read(int.from_bytes(asked.read(8), "big")))
    threading.Thread(target=_end_with_parent, args=(asked,), daemon=True).start()
    process = os.getpid()
    try:
        frame = _VALUE + _result(**call)
    except BaseException as error:  # noqa: BLE001  # a tool may raise anything, SystemExit included
        frame = _ERROR + failure(error)
    if os.getpid() == process:  # else the tool has forked, and this is the copy: nobody waits for it
        with os.fdopen(reply, "wb") as pipe:
            pipe.write(len(frame).to_bytes(8, "big") + frame)
    os._exit(0)


def _take_standard_input() -> BinaryIO:
    """The pipe to the parent; a tool that reads its standard input finds nothing there."""
    asked = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return asked


def _result(*, code: list[Any], arguments: dict[str, Any], context: dict[str, Any]) -> bytes:
    tool = load(Code(*code))
    value = tool.call(arguments, ToolContext(**{**context, "epoch": tuple(context["epoch"])}))
    return encode(value, tool=tool.spec.name)


def _end_with_parent(asked: BinaryIO) -> None:
    asked.read()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(0, signal.SIGKILL)
