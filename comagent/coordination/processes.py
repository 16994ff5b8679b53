"""Which processes of this machine belong to whom, and whether they still live."""

import os
import platform
from pathlib import Path

import psutil

from comagent.coordination.base import OwnedProcess

_CLOCK_S = 1.5
"""The system tells the time of its start in whole seconds, and may round it anew when its clock is set."""


def boot_id() -> str:
    """Names the running system in which a pid means something: this boot, and in a container its own pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{platform.node()} {psutil.boot_time():.0f}"


def process_start_time(pid: int) -> float | None:
    """Seconds from the start of the system to that of the process; None if there is no such process.

    Unlike the time of day it stays the same when the clock is set.
    """
    try:
        process = psutil.Process(pid)
        # A zombie is dead: nothing but its number is left.
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.create_time() - psutil.boot_time()
    except psutil.NoSuchProcess:
        return None


def this_process(name: str) -> OwnedProcess:
    """The calling process under a name of its own."""
    start_time = process_start_time(os.getpid())
    assert start_time is not None
    return OwnedProcess(os.getpid(), start_time, name)


def is_alive(process: OwnedProcess) -> bool:
    """Whether this very process, and not a later one with its pid, is running. For processes of this boot only."""
    start_time = process_start_time(process.pid)
    return start_time is not None and abs(start_time - process.start_time) < _CLOCK_S
