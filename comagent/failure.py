"""What is kept of an exception: its type, its message and the tool's own traceback, however broken the exception is."""

import threading
import traceback
from collections.abc import Iterable
from pathlib import Path
from types import FrameType

from comagent.errors import ComAgentError
from comagent.values import encode

TRACEBACK_CHARS = 8_000
MESSAGE_CHARS = 2_000

_HERE = str(Path(__file__).parent)
_UNNAMED = ("builtins", "comagent.errors", "__main__")
"""Modules whose exceptions are known without naming the module."""


def failure(error: BaseException) -> bytes:
    """The error as it is stored."""
    trace = None if isinstance(error, ComAgentError) else _own_traceback(error)
    return told(_kind(error), _message(error), trace=trace)


def told(kind: str, message: str, *, trace: str | None = None) -> bytes:
    """An error that was no exception here: what happened, and where that is known."""
    body = {"type": _text(kind), "message": _head(_text(message))}
    if trace:
        body["traceback"] = _text(trace)[-TRACEBACK_CHARS:]
    return encode(body, tool="")


def _kind(error: BaseException) -> str:
    kind = type(error)
    module = str(kind.__module__)
    # Modules that were loaded by file have a made-up name.
    if module in _UNNAMED or module.startswith("comagent_file_"):
        return kind.__qualname__
    return f"{module}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException as broken:  # noqa: BLE001  # a tool's exception may raise anything, SystemExit included
        return f"(it has no text: making it raised {type(broken).__name__})"


def _own_traceback(error: BaseException) -> str:
    """The traceback with its causes, without the frames of this package that led to the tool."""
    place = error.__traceback__
    while place is not None and place.tb_frame.f_code.co_filename.startswith(_HERE):
        place = place.tb_next
    try:
        return "".join(_head(part) for part in traceback.format_exception(type(error), error, place))
    except Exception as broken:  # noqa: BLE001  # a poor traceback must not hide the error
        return f"{_kind(error)} (its traceback cannot be made: {type(broken).__name__})"


def _text(text: str) -> str:
    """The text without what is not Unicode."""
    return text.encode("utf-8", "backslashreplace").decode()


def _head(text: str) -> str:
    return text if len(text) <= MESSAGE_CHARS else f"{text[:MESSAGE_CHARS]}… ({len(text)} characters)"


def stack(frames: Iterable[FrameType]) -> str:
    """Where something stands that has not ended: its frames, outermost first, without those that led to the tool."""
    summary = traceback.StackSummary.extract((frame, frame.f_lineno) for frame in frames)
    while summary and summary[0].filename.startswith((_HERE, threading.__file__)):
        del summary[0]
    return "".join(["Where it was (most recent call last):\n", *summary.format()]) if summary else ""
