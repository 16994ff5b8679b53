"""Tools in a process of their own: they can be stopped at any time, and what they break is theirs.

The parent writes the call to the child's standard input and keeps that open: when it closes, because the call is over or
the parent died, the child ends with everything that it started. The answer comes through a pipe of its own, so that
whatever the tool prints cannot get in its way.
"""

import asyncio
import contextlib
import inspect
import json
import os
import signal
import sys
import threading
import traceback
from dataclasses import asdict
from typing import Any

from comagent.tools.base import ToolContext
from comagent.tools.loading import load
from comagent.tools.source import Code
from comagent.values import decode, encode

TRACEBACK_CHARS = 8_000


class ProcessDied(Exception):
    """The tool's process failed. `kind` is the type of the tool's own exception, or `ProcessDied`."""

    def __init__(self, kind: str, problem: str, trace: str = ""):
        super().__init__(kind, problem, trace)
        self.kind = kind
        self.problem = problem
        self.trace = trace

    def __str__(self) -> str:
        return self.problem


class ProcessCall:
    """One call of a tool in a process of its own."""

    def __init__(self, code: Code, arguments: dict[str, Any], context: ToolContext):
        self._call = encode({"code": list(code), "arguments": arguments, "context": asdict(context)}, tool=code.qualname)

    async def run(self) -> Any:
        """The tool's result. Ends the process and all its children if the caller is cancelled."""
        read, write = os.pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "comagent.isolation",
                str(write),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                pass_fds=(write,),
                start_new_session=True,
            )
        except BaseException:
            os.close(read)
            raise
        finally:
            os.close(write)
        try:
            assert process.stdin is not None
            process.stdin.write(len(self._call).to_bytes(8, "big") + self._call)
            with contextlib.suppress(ConnectionError):
                await process.stdin.drain()
            answer = await _read_all(read)
            code = await process.wait()
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(ProcessLookupError):
                await process.wait()
            transport = getattr(process, "_transport", None)
            if transport is not None:
                transport.close()
        if not answer:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
            raise ProcessDied("ProcessDied", f"the tool's process {how} before it returned a result")
        answered = decode(answer)
        if "error" in answered:
            error = answered["error"]
            raise ProcessDied(error["type"], error["message"], error["traceback"])
        return answered["value"]


async def _read_all(read: int) -> bytes:
    """Everything that comes through a pipe until its last writer has closed it."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(read, "rb"))
    try:
        return await reader.read()
    finally:
        transport.close()


def main() -> None:
    """The child: reads one call, answers it, ends."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    answer = int(sys.argv[1])
    os.set_inheritable(answer, False)
    size = int.from_bytes(sys.stdin.buffer.read(8), "big")
    call = json.loads(sys.stdin.buffer.read(size))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        context = call["context"]
        context["epoch"] = tuple(context["epoch"])
        tool = load(Code(*call["code"]))
        value = tool.call(call["arguments"], ToolContext(**context))
        if inspect.isawaitable(value):
            value = asyncio.run(_await(value))
        data = b'{"value":' + encode(value, tool=tool.spec.name) + b"}"
    except BaseException as error:  # a tool may raise anything, SystemExit included
        kind = type(error)
        name = kind.__qualname__ if kind.__module__ in ("builtins", "comagent.errors") else f"{kind.__module__}.{kind.__qualname__}"
        trace = "".join(traceback.format_exception(error))[-TRACEBACK_CHARS:]
        data = encode({"error": {"type": name, "message": str(error), "traceback": trace}}, tool="")
    with os.fdopen(answer, "wb") as pipe:
        pipe.write(data)
    os._exit(0)


async def _await(value: Any) -> Any:
    return await value


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
