"""Waiting for what other processes do: by looking, because they do not tell."""

import asyncio
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

import psutil

PATIENCE_S = 60.0
LOOK_S = 0.01

_T = TypeVar("_T")


def until(look: Callable[[], _T]) -> _T:
    """The first true thing that `look` returns."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, "it has not happened"
        time.sleep(LOOK_S)
    return seen


async def until_async(look: Callable[[], _T]) -> _T:
    """`until`, while the event loop goes on."""
    deadline = time.monotonic() + PATIENCE_S
    while not (seen := look()):
        assert time.monotonic() < deadline, "it has not happened"
        await asyncio.sleep(LOOK_S)
    return seen


def written(mark: Path) -> Callable[[], bool]:
    """To wait for a file that is there as soon as it is whole."""
    return mark.exists


def gone(pids: Iterable[int]) -> Callable[[], bool]:
    """To wait for the end of processes."""
    return lambda: not any(runs(pid) for pid in pids)


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
