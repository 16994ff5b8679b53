"""Tools for trying out processes: they return, wait or fail as told."""

import asyncio
from typing import Any

from comagent.tools.base import ToolContext, tool

__all__ = ["DebugError", "echo", "fail", "sleep"]


class DebugError(Exception):
    """A failure that was asked for."""


@tool(name="debug.echo", kind="inline", cost="cheap", effects="none")
def echo(value: Any) -> Any:
    """Return the value as it is."""
    return value


@tool(name="debug.sleep", effects="none")
async def sleep(seconds: float, value: Any = None) -> Any:
    """Wait so many seconds, then return the value. Negative numbers do not wait."""
    await asyncio.sleep(max(0.0, seconds))
    return value


@tool(name="debug.fail", kind="inline", cost="cheap", effects="none")
def fail(message: str, times: int | None = None, context: ToolContext | None = None) -> dict[str, int]:
    """Fail with the message: always, or in the first so many attempts.

    After these it succeeds with `{"attempt": n}`. Called outside a job, every call is a first attempt.
    """
    attempt = 1 if context is None else context.attempt
    if times is None or attempt <= times:
        raise DebugError(message)
    return {"attempt": attempt}
