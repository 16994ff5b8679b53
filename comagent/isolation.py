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
from typing import Any, BinaryIO

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


async def _in_process(call: bytes) -> Ended:
    answer, reply = os.pipe()
    try:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _START, str(Path(__file__).parents[1]), str(reply)),
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
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(len(call).to_bytes(8, "big") + call)
    words = bytearray()
    answering = asyncio.ensure_future(_read_frame(answer))
    listening = asyncio.ensure_future(_keep_end(process.stderr, words))
    dying = asyncio.ensure_future(process.wait())
    try:
        await asyncio.wait({answering, dying}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            await asyncio.wait({answering, listening}, timeout=LAST_WORDS_S)
        frame = answering.result() if answering.done() else b""
        if frame:
            return Ended(frame[1:], None) if frame[:1] == _VALUE else Ended(None, frame[1:])
        code = await dying
        await asyncio.wait({listening}, timeout=LAST_WORDS_S)
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        said = words.decode("utf-8", "replace")
        return Ended(None, told("ProcessDied", f"the tool's process {how} before it returned a result", trace=said))
    except asyncio.CancelledError:
        # What has left the process group is found only as long as its parents live.
        _kill(_descendants(process.pid))
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        answering.cancel()
        listening.cancel()
        await asyncio.wait({answering, listening, dying})
        process._transport.close()  # type: ignore[attr-defined]  # the pipes would else be closed by the collector


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


async def _keep_end(stream: asyncio.StreamReader, words: bytearray) -> None:
    """Reads all there is and keeps the end of it: a tool that floods its output harms nobody."""
    while chunk := await stream.read(1 << 16):
        words += chunk
        del words[:-TRACEBACK_CHARS]


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
