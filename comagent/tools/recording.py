"""Calls of tools that are noted down instead of carried out: how a process is written as a Python function."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

__all__ = ["Recorder", "as_written", "recordable", "recording"]

Recorder = Callable[[Callable[..., Any], Sequence[Any], Mapping[str, Any]], Any]
"""Takes the tool that was called and its arguments; what it returns is what the call returns."""

_WRITTEN = "__comagent_written__"
_recorder: ContextVar[Recorder | None] = ContextVar("comagent_recorder", default=None)


def recordable(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function; within `recording` its calls go to the recorder."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        record = _recorder.get()
        return function(*args, **kwargs) if record is None else record(call, args, kwargs)

    vars(call)[_WRITTEN] = (call, function)
    return call


def as_written(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function that `recordable` was given, or else the one at hand."""
    written = getattr(function, _WRITTEN, None)
    # Another decorator may have copied the mark to a function of its own, which is the one to call then.
    found: Callable[..., Any] = written[1] if written is not None and written[0] is function else function
    return found


@contextmanager
def recording(recorder: Recorder | None) -> Iterator[None]:
    """Calls of declared tools go to `recorder` within; with None they are carried out again."""
    token = _recorder.set(recorder)
    try:
        yield
    finally:
        _recorder.reset(token)
